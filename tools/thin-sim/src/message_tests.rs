// SPDX-License-Identifier: GPL-2.0

//! Messages, right and wrong.

use std::ffi::CString;

use crate::core::{
    message::Message,
    units::DeviceId, //
};

/// What is made of a message, or what the log says of it.
fn parse(message: &str) -> Result<Message, String> {
    let words: Vec<_> = message
        .split(' ')
        .map(|word| CString::new(word).unwrap())
        .collect();
    let parsed = Message::parse(words.iter().map(CString::as_c_str));
    parsed.map_err(|refusal| refusal.to_string())
}

fn device(number: u64) -> DeviceId {
    DeviceId::new(number).unwrap()
}

#[test]
fn messages_are_understood_in_any_case() {
    for (message, expected) in [
        ("create_thin 0", Message::CreateThin { device: device(0) }),
        (
            "CREATE_THIN 16777215",
            Message::CreateThin {
                device: DeviceId::MAX,
            },
        ),
        (
            "create_snap 2 1",
            Message::CreateSnap {
                device: device(2),
                origin: device(1),
            },
        ),
        ("Delete +3", Message::Delete { device: device(3) }),
        (
            "set_transaction_id 0 18446744073709551615",
            Message::SetTransactionId {
                current: 0,
                new: u64::MAX,
            },
        ),
        ("reserve_metadata_snap", Message::ReserveMetadataSnap),
        ("release_metadata_snap", Message::ReleaseMetadataSnap),
    ] {
        assert_eq!(parse(message), Ok(expected));
    }
}

#[test]
fn wrong_messages_are_refused_and_the_log_says_why() {
    for (message, reason) in [
        ("nonsense", "message \"nonsense\" is unknown"),
        ("", "message \"\" is unknown"),
        (
            "create_thi\u{e9} 1",
            "message \"create_thi\\xc3\\xa9\" is unknown",
        ),
        ("create_thin", "message has 1 words instead of 2"),
        ("create_thin 1 2", "message has 3 words instead of 2"),
        ("create_thin 1 2 3 4 5", "message has 6 words instead of 2"),
        ("create_snap 1", "message has 2 words instead of 3"),
        (
            "reserve_metadata_snap 1",
            "message has 2 words instead of 1",
        ),
        (
            "create_thin 16777216",
            "message has an invalid device id: \"16777216\"",
        ),
        ("create_thin x", "message has an invalid device id: \"x\""),
        ("create_thin -1", "message has an invalid device id: \"-1\""),
        ("create_snap x y", "message has an invalid device id: \"x\""),
        ("create_snap 1 y", "message has an invalid device id: \"y\""),
        ("delete 0x1", "message has an invalid device id: \"0x1\""),
        (
            "set_transaction_id x y",
            "message has an invalid transaction id: \"x\"",
        ),
        (
            "set_transaction_id 1 y",
            "message has an invalid transaction id: \"y\"",
        ),
        (
            "set_transaction_id 1 18446744073709551616",
            "message has an invalid transaction id: \"18446744073709551616\"",
        ),
    ] {
        assert_eq!(parse(message), Err(reason.into()), "{message}");
    }
}

#[test]
fn a_message_shows_as_it_was_sent() {
    for message in [
        "create_thin 7",
        "create_snap 8 7",
        "delete 8",
        "set_transaction_id 1 2",
        "reserve_metadata_snap",
        "release_metadata_snap",
    ] {
        let parsed = parse(message).unwrap();
        assert_eq!(parsed.to_string(), message);
        assert!(parsed.failure().to_string().ends_with(" failed"));
    }
    let failure = parse("create_snap 8 7").unwrap().failure().to_string();
    assert_eq!(failure, "creating snapshot 8 of thin device 7 failed");
}
