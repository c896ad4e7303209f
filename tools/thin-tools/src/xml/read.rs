// SPDX-License-Identifier: GPL-2.0

//! The events of a whole file, in order, parsed by several threads.

use std::io;
use std::io::Read;

use super::parse;
use super::parse::Fault;
use super::parse::Position;
use super::Event;
use crate::cli::Failure;
use crate::ordered;

/// Bytes that a thread parses at a time.
const PIECE: usize = 1 << 20;

/// Pieces under way.
const AHEAD: usize = 8;

/// Why whoever takes events does not want more.
#[derive(Debug)]
pub enum Stop {
    /// The event makes no sense here: the reader says where it is.
    Fault(String),
    /// Anything else.
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

/// A part of the text, and what a thread made of it under the assumption that no tag is cut at its start.
struct Piece {
    text: Vec<u8>,
    events: Vec<Event>,
    /// How much was used, and the position behind that relative to the piece's start.
    outcome: Result<(usize, Position), Fault>,
}

impl Piece {
    fn parse(text: Vec<u8>) -> Piece {
        let mut events = Vec::with_capacity(text.len() / 64);
        let outcome = parse::parse(&text, |_, event| {
            events.push(event);
            true
        });
        let outcome = outcome.map(|used| {
            (
                used,
                Position::START.after(text.get(..used).unwrap_or_default()),
            )
        });
        Piece {
            text,
            events,
            outcome,
        }
    }

    /// Where event number `wanted` is.
    fn offset_of(&self, wanted: usize) -> usize {
        let mut index = 0;
        let mut found = 0;
        let _ = parse::parse(&self.text, |at, _| {
            found = at;
            index += 1;
            index <= wanted
        });
        found
    }
}

/// Reads `input` to its end and hands every event to `take`.
///
/// Memory: some MiB, whatever the input is. `progress` hears how many bytes have been dealt with.
///
/// # Errors
///
/// What is wrong with the text and where, an I/O error, or why `take` stopped.
pub fn read(
    mut input: impl Read + Send,
    mut progress: impl FnMut(u64),
    mut take: impl FnMut(Event) -> Result<(), Stop>,
) -> Result<(), Failure> {
    let mut rest = Vec::new();
    let mut is_done = false;
    let produce = move || {
        if is_done {
            return None;
        }
        match next_piece(&mut input, &mut rest) {
            Ok(None) => None,
            Ok(Some(text)) => Some(Ok(text)),
            Err(error) => {
                is_done = true;
                Some(Err(error))
            }
        }
    };
    let mut position = Position::START;
    let mut cut = Vec::new();
    let work = |text: io::Result<Vec<u8>>| text.map(Piece::parse);
    ordered::run(AHEAD, produce, work, |piece: io::Result<Piece>| {
        let mut piece = piece.map_err(Failure::from)?;
        let length = piece.text.len() as u64;
        if !cut.is_empty() {
            // A tag was cut after all: the piece begins with its second half.
            let mut text = std::mem::take(&mut cut);
            text.extend_from_slice(&piece.text);
            piece = Piece::parse(text);
        }
        let fault_at = |at: usize, what: &str, piece: &Piece| {
            let at = position.after(piece.text.get(..at).unwrap_or_default());
            Failure::new(format!("{at}: {what}"))
        };
        let events = std::mem::take(&mut piece.events);
        for (index, event) in events.into_iter().enumerate() {
            match take(event) {
                Ok(()) => {}
                Err(Stop::Fault(what)) => {
                    return Err(fault_at(piece.offset_of(index), &what, &piece))
                }
                Err(Stop::Failure(failure)) => return Err(failure),
            }
        }
        match &piece.outcome {
            Err(fault) => return Err(fault_at(fault.at, &fault.what, &piece)),
            Ok((used, relative)) => {
                position = position.moved(*relative);
                cut = piece.text.split_off((*used).min(piece.text.len()));
            }
        }
        progress(length);
        Ok(())
    })?;
    if cut.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "{position}: the text ends inside this tag"
        )))
    }
}

/// The next part of the text. It ends with a tag's end if one came; `rest` keeps what follows that.
fn next_piece(input: &mut impl Read, rest: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let mut text = std::mem::replace(rest, Vec::with_capacity(PIECE));
    input
        .take((PIECE.saturating_sub(text.len()).max(1)) as u64)
        .read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(last) = text.iter().rposition(|&byte| byte == b'>') {
        rest.extend_from_slice(text.get(last + 1..).unwrap_or_default());
        text.truncate(last + 1);
    }
    Ok(Some(text))
}

/// The first event of a file.
///
/// # Errors
///
/// An I/O error, what is wrong with the text, or that it has no events.
pub fn first(input: &mut impl Read) -> Result<Event, Failure> {
    let mut text = Vec::new();
    input
        .take(2 * parse::LONGEST_TOKEN as u64)
        .read_to_end(&mut text)
        .map_err(Failure::from)?;
    let mut first = None;
    let outcome = parse::parse(&text, |_, event| {
        first = Some(event);
        false
    });
    match (first, outcome) {
        (Some(event), _) => Ok(event),
        (None, Err(fault)) => {
            let at = Position::START.after(text.get(..fault.at).unwrap_or_default());
            Err(Failure::new(format!("{at}: {}", fault.what)))
        }
        (None, Ok(_)) => Err(Failure::new("incomplete source metadata: no element in it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events_of(text: &str) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        let outcome = read(
            text.as_bytes(),
            |_| {},
            |event| {
                if matches!(event, Event::Ref(ref name) if &**name == "bad") {
                    return Err(Stop::Fault("a bad one".into()));
                }
                events.push(event);
                Ok(())
            },
        );
        outcome
            .map(|()| events)
            .map_err(|failure| failure.message().unwrap_or_default())
    }

    #[test]
    fn a_long_text_is_read_in_order() {
        let count = 100_000;
        let lines: Vec<String> = (0..count)
            .map(|name| format!("  <ref name=\"{name}\"/><!-- {name}\n> -->\n"))
            .collect();
        let text = lines.concat();
        assert!(text.len() > 3 * PIECE);
        let expected: Vec<_> = (0..count)
            .map(|name| Event::Ref(name.to_string().into()))
            .collect();
        assert_eq!(events_of(&text).unwrap(), expected);
    }

    #[test]
    fn a_tag_may_be_cut_anywhere() {
        // `>` in comments and names: pieces end inside of them.
        let filler = " ".repeat(PIECE - 20);
        for shift in 0..40 {
            let text = format!(
                "{}{filler}<ref name=\"a>b>c\"/><!-- >> --><ref name=\"d\"/>",
                " ".repeat(shift)
            );
            let expected = vec![Event::Ref("a>b>c".into()), Event::Ref("d".into())];
            assert_eq!(events_of(&text).unwrap(), expected);
        }
    }

    #[test]
    fn faults_have_a_place_in_the_whole_text() {
        let lines = 50_000;
        let good: String = (0..lines)
            .map(|_| "<ref name=\"something long enough\"/>\n")
            .collect();
        assert!(good.len() > PIECE);
        let at = |tail: &str| events_of(&format!("{good}{tail}")).unwrap_err();
        assert_eq!(
            at("  <ref name=\"bad\"/>\n"),
            format!("line {}, column 3: a bad one", lines + 1)
        );
        assert_eq!(
            at(" <what/>"),
            format!("line {}, column 2: unknown element 'what'", lines + 1)
        );
        assert_eq!(
            at("\n <ref"),
            format!(
                "line {}, column 2: the text ends inside this tag",
                lines + 2
            )
        );
    }

    #[test]
    fn the_first_event_is_found() {
        assert_eq!(
            first(&mut "<!-- x --><ref name='a'/><".as_bytes()).unwrap(),
            Event::Ref("a".into())
        );
        assert!(first(&mut "".as_bytes()).is_err());
        assert!(first(&mut " <x/>".as_bytes())
            .unwrap_err()
            .message()
            .unwrap()
            .starts_with("line 1, column 2"));
    }
}
