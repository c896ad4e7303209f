// SPDX-License-Identifier: GPL-2.0

//! The system log, for tools whose callers throw standard error away.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::net::UnixDatagram;

/// Facility "daemon", severity "error".
const PRIORITY: u32 = (3 << 3) | 3;

/// How much of a message is logged, in bytes.
const LONGEST: usize = 1000;

/// Logs `text` as `tool`; to the kernel's log when no log daemon listens, as in an initramfs.
///
/// Nothing can be done about a log that cannot be written, and it must not change a tool's result.
pub fn syslog(tool: &str, text: &str) {
    let mut text = text.replace('\n', " ");
    if text.len() > LONGEST {
        let end = (0..=LONGEST)
            .rev()
            .find(|&end| text.is_char_boundary(end))
            .unwrap_or(0);
        text.truncate(end);
    }
    let line = format!("<{PRIORITY}>{tool}[{}]: {text}", std::process::id());
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(line.as_bytes(), "/dev/log")
    });
    if sent.is_err() {
        if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
            let _ = log.write_all(line.as_bytes());
        }
    }
}
