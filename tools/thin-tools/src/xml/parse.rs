// SPDX-License-Identifier: GPL-2.0

//! XML to events, piece by piece.
//!
//! The text is what these tools write: seven elements whose attributes are numbers and names. Text between
//! elements and comments mean nothing, an XML declaration and a document type are passed over; entities, character data sections and
//! other elements are refused. Every offset in a [`Fault`] points at what is wrong.

use std::fmt;

use super::Device;
use super::Event;
use super::Superblock;
use thin_format::thin::Run;

/// A tag or comment longer than this is refused: nothing sensible is, and the rest of a file that lacks the end
/// of a tag must not fill the memory.
pub const LONGEST_TOKEN: usize = 1 << 20;

/// Something wrong in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Offset in the text, in bytes.
    pub at: usize,
    /// What is wrong.
    pub what: String,
}

/// Line and column of a byte, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The byte in the line.
    pub column: u64,
}

impl Position {
    /// Where a text begins.
    pub const START: Position = Position { line: 1, column: 1 };

    /// The position after `text`, which begins here.
    pub fn after(self, text: &[u8]) -> Position {
        let mut position = self;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            if line.ends_with(b"\n") {
                position = Position {
                    line: position.line.saturating_add(1),
                    column: 1,
                };
            } else {
                position.column = position.column.saturating_add(line.len() as u64);
            }
        }
        position
    }

    /// The position of what is at `relative` in a text that begins here.
    pub fn moved(self, relative: Position) -> Position {
        match relative.line {
            1 => Position {
                line: self.line,
                column: self.column.saturating_add(relative.column - 1),
            },
            line => Position {
                line: self.line.saturating_add(line - 1),
                column: relative.column,
            },
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}, column {}", self.line, self.column)
    }
}

/// Parses the whole tags at the start of `text` and gives each event to `take`, with the offset of its tag.
///
/// Returns how many bytes were used: what is left is the beginning of a tag or of a comment that goes on behind
/// the text's end. `take` returns whether to go on.
///
/// # Errors
///
/// The first fault. Events before it were given to `take`.
pub fn parse(text: &[u8], mut take: impl FnMut(usize, Event) -> bool) -> Result<usize, Fault> {
    let mut at = 0;
    loop {
        at = match find(text, at, b'<') {
            Some(at) => at,
            None => return Ok(text.len()),
        };
        if let Some((run, end)) = canonical_run(text, at) {
            if !take(at, Event::Run(run)) {
                return Ok(end);
            }
            at = end;
            continue;
        }
        let Some(token) = token(text, at)? else {
            return Ok(at);
        };
        let end = token.end;
        if token.is_element {
            let (event, also) = element(text, at, end)?;
            if !take(at, event) {
                return Ok(end);
            }
            if let Some(event) = also {
                if !take(at, event) {
                    return Ok(end);
                }
            }
        }
        at = end;
    }
}

fn find(text: &[u8], from: usize, wanted: u8) -> Option<usize> {
    let rest = text.get(from..)?;
    rest.iter()
        .position(|&byte| byte == wanted)
        .map(|index| from + index)
}

struct Token {
    end: usize,
    is_element: bool,
}

/// The token that begins with the `<` at `at`, or `None` if it does not end within the text.
fn token(text: &[u8], at: usize) -> Result<Option<Token>, Fault> {
    let rest = text.get(at..).unwrap_or_default();
    let limited = rest.get(..LONGEST_TOKEN).unwrap_or(rest);
    let length = match limited {
        [b'<', b'!', b'-', b'-', ..] => ends_with(limited, 4, b"-->"),
        [b'<', b'?', ..] => ends_with(limited, 2, b"?>"),
        [b'<', b'!', b'[', ..] => {
            return Err(fault(at, "character data sections have no meaning here"));
        }
        [b'<', b'!', b'D', ..] => tag_length(limited),
        [b'<', b'!', b'-'] | [b'<', b'!'] | [b'<'] => None,
        [b'<', b'!', ..] => return Err(fault(at, "this declaration has no meaning here")),
        _ => tag_length(limited),
    };
    match length {
        Some(length) => {
            let is_element = !matches!(limited, [b'<', b'!' | b'?', ..]);
            Ok(Some(Token {
                end: at + length,
                is_element,
            }))
        }
        None if rest.len() >= LONGEST_TOKEN => Err(fault(at, "this tag does not end within 1 MiB")),
        None => Ok(None),
    }
}

fn ends_with(text: &[u8], from: usize, end: &[u8]) -> Option<usize> {
    let rest = text.get(from..)?;
    let index = rest.windows(end.len()).position(|window| window == end)?;
    Some(from + index + end.len())
}

/// Length of the tag at the start of `text`. A `>` inside quotes does not end it.
fn tag_length(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (index, &byte) in text.iter().enumerate() {
        match quote {
            Some(mark) if byte == mark => quote = None,
            Some(_) => {}
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            None if byte == b'>' => return Some(index + 1),
            None => {}
        }
    }
    None
}

/// A mapping whose attributes come in the usual order: nearly all of a text consists of these.
fn canonical_run(text: &[u8], at: usize) -> Option<(Run, usize)> {
    let rest = text.get(at..)?;
    let mut run = Run {
        thin: 0,
        data: 0,
        length: 1,
        time: 0,
    };
    let mut cursor = Cursor { rest };
    if cursor.skip(b"<single_mapping origin_block=\"") {
        run.thin = cursor.number()?;
        cursor.expect(b"\" data_block=\"")?;
        run.data = cursor.number()?;
    } else if cursor.skip(b"<range_mapping origin_begin=\"") {
        run.thin = cursor.number()?;
        cursor.expect(b"\" data_begin=\"")?;
        run.data = cursor.number()?;
        cursor.expect(b"\" length=\"")?;
        run.length = cursor.number()?;
    } else {
        return None;
    }
    cursor.expect(b"\" time=\"")?;
    run.time = u32::try_from(cursor.number()?).ok()?;
    cursor.expect(b"\"/>")?;
    Some((run, text.len() - cursor.rest.len()))
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    #[inline(always)]
    fn skip(&mut self, piece: &[u8]) -> bool {
        match self.rest.strip_prefix(piece) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn expect(&mut self, piece: &[u8]) -> Option<()> {
        self.skip(piece).then_some(())
    }

    #[inline(always)]
    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        let mut digits = 0;
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            // 19 digits always fit; the unusual number with 20 takes the slow path.
            digits += 1;
            if digits > 19 {
                return None;
            }
            value = value * 10 + u64::from(digit - b'0');
            self.rest = rest;
        }
        (digits > 0).then_some(value)
    }
}

fn fault(at: usize, what: impl Into<String>) -> Fault {
    Fault {
        at,
        what: what.into(),
    }
}

/// The event of the tag at `at..end`, and a second one if the tag is start and end of an element in one.
fn element(text: &[u8], at: usize, end: usize) -> Result<(Event, Option<Event>), Fault> {
    let mut inner = text.get(at + 1..end - 1).unwrap_or_default();
    let is_end = inner.first() == Some(&b'/');
    if is_end {
        inner = &inner[1..];
    }
    let name_length = inner
        .iter()
        .position(|byte| byte.is_ascii_whitespace() || *byte == b'/')
        .unwrap_or(inner.len());
    let (name, rest) = inner.split_at(name_length);
    let name =
        std::str::from_utf8(name).map_err(|_| fault(at, "the name of this element is not text"))?;
    if is_end {
        if !rest.trim_ascii().is_empty() {
            return Err(fault(
                at,
                format!("the end of element '{name}' has attributes"),
            ));
        }
        return match name {
            "superblock" => Ok((Event::SuperblockEnd, None)),
            "def" => Ok((Event::DefEnd, None)),
            "device" => Ok((Event::DeviceEnd, None)),
            _ => Err(fault(at, format!("unexpected end of element '{name}'"))),
        };
    }
    let (rest, is_empty) = match rest.strip_suffix(b"/") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let rest_at = end - 1 - usize::from(is_empty) - rest.len();
    let attributes = Attributes::parse(at, name, rest, rest_at)?;
    let (event, event_end) = match name {
        "superblock" => (superblock(attributes)?, Some(Event::SuperblockEnd)),
        "device" => (device(attributes)?, Some(Event::DeviceEnd)),
        "def" => (Event::Def(attributes.only_name()?), Some(Event::DefEnd)),
        "ref" => (Event::Ref(attributes.only_name()?), None),
        "single_mapping" => (single_mapping(attributes)?, None),
        "range_mapping" => (range_mapping(attributes)?, None),
        _ => return Err(fault(at, format!("unknown element '{name}'"))),
    };
    match event_end {
        Some(event_end) => Ok((event, is_empty.then_some(event_end))),
        None if is_empty => Ok((event, None)),
        None => Err(fault(at, format!("element '{name}' must end with '/>'"))),
    }
}

fn superblock(mut attributes: Attributes<'_>) -> Result<Event, Fault> {
    let superblock = Superblock {
        uuid: attributes
            .optional("uuid")
            .map(|(_, value)| value.to_string())
            .unwrap_or_default(),
        time: attributes.number("time")?,
        transaction: attributes.number("transaction")?,
        flags: attributes.optional_number("flags")?.unwrap_or(0),
        version: attributes.optional_number("version")?.unwrap_or(2),
        data_block_size: attributes.number("data_block_size")?,
        nr_data_blocks: attributes.number("nr_data_blocks")?,
        metadata_snap: attributes.optional_number("metadata_snap")?,
    };
    attributes.done()?;
    Ok(Event::Superblock(Box::new(superblock)))
}

fn device(mut attributes: Attributes<'_>) -> Result<Event, Fault> {
    let device = Device {
        dev_id: attributes.number("dev_id")?,
        mapped_blocks: attributes.number("mapped_blocks")?,
        transaction: attributes.number("transaction")?,
        creation_time: attributes.number("creation_time")?,
        snap_time: attributes.number("snap_time")?,
    };
    attributes.done()?;
    Ok(Event::Device(Box::new(device)))
}

fn single_mapping(mut attributes: Attributes<'_>) -> Result<Event, Fault> {
    let run = Run {
        thin: attributes.number("origin_block")?,
        data: attributes.number("data_block")?,
        length: 1,
        time: attributes.number("time")?,
    };
    attributes.done()?;
    Ok(Event::Run(run))
}

fn range_mapping(mut attributes: Attributes<'_>) -> Result<Event, Fault> {
    let run = Run {
        thin: attributes.number("origin_begin")?,
        data: attributes.number("data_begin")?,
        length: attributes.number("length")?,
        time: attributes.number("time")?,
    };
    attributes.done()?;
    Ok(Event::Run(run))
}

/// The attributes of a tag; each is taken out once.
struct Attributes<'a> {
    element: &'a str,
    at: usize,
    left: Vec<(usize, &'a str, &'a str)>,
}

impl<'a> Attributes<'a> {
    /// `text` stands at `text_at` and holds what is between the name of the element at `at` and its end.
    fn parse(
        at: usize,
        element: &'a str,
        text: &'a [u8],
        text_at: usize,
    ) -> Result<Attributes<'a>, Fault> {
        let mut left = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_ascii_start();
            if rest.is_empty() {
                return Ok(Attributes { element, at, left });
            }
            let here = text_at + (text.len() - rest.len());
            let malformed = || fault(here, format!("malformed attribute in element '{element}'"));
            let equals = rest
                .iter()
                .position(|&byte| byte == b'=')
                .ok_or_else(malformed)?;
            let name =
                std::str::from_utf8(rest[..equals].trim_ascii_end()).map_err(|_| malformed())?;
            let value = rest[equals + 1..].trim_ascii_start();
            let (quote, value) = match value {
                [quote @ (b'"' | b'\''), value @ ..] => (*quote, value),
                _ => return Err(malformed()),
            };
            let length = value
                .iter()
                .position(|&byte| byte == quote)
                .ok_or_else(malformed)?;
            let (value, after) = value.split_at(length);
            let value = std::str::from_utf8(value).map_err(|_| malformed())?;
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '"') {
                return Err(malformed());
            }
            if value.contains(['&', '<']) {
                return Err(fault(
                    here,
                    format!("the value of attribute '{name}' has an entity or a '<' in it"),
                ));
            }
            if left.iter().any(|&(_, other, _)| other == name) {
                return Err(fault(here, format!("attribute '{name}' is given twice")));
            }
            left.push((here, name, value));
            rest = &after[1..];
        }
    }

    fn optional(&mut self, name: &str) -> Option<(usize, &'a str)> {
        let index = self.left.iter().position(|&(_, other, _)| other == name)?;
        let (at, _, value) = self.left.swap_remove(index);
        Some((at, value))
    }

    fn required(&mut self, name: &str) -> Result<(usize, &'a str), Fault> {
        self.optional(name).ok_or_else(|| {
            fault(
                self.at,
                format!("element '{}' lacks attribute '{name}'", self.element),
            )
        })
    }

    fn optional_number<N: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<N>, Fault> {
        match self.optional(name) {
            Some((at, value)) => number(at, name, value).map(Some),
            None => Ok(None),
        }
    }

    fn number<N: TryFrom<u64>>(&mut self, name: &str) -> Result<N, Fault> {
        let (at, value) = self.required(name)?;
        number(at, name, value)
    }

    fn only_name(mut self) -> Result<Box<str>, Fault> {
        let (_, name) = self.required("name")?;
        self.done()?;
        Ok(name.into())
    }

    fn done(self) -> Result<(), Fault> {
        match self.left.first() {
            None => Ok(()),
            Some(&(at, name, _)) => Err(fault(
                at,
                format!("unknown attribute '{name}' in element '{}'", self.element),
            )),
        }
    }
}

fn number<N: TryFrom<u64>>(at: usize, name: &str, value: &str) -> Result<N, Fault> {
    if value.is_empty() || value.bytes().any(|byte| !byte.is_ascii_digit()) {
        return Err(fault(
            at,
            format!("the value of attribute '{name}' is not a number: '{value}'"),
        ));
    }
    let too_large = || {
        fault(
            at,
            format!("the value of attribute '{name}' is too large: {value}"),
        )
    };
    let value: u64 = value.parse().map_err(|_| too_large())?;
    N::try_from(value).map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::super::write;
    use super::*;

    fn events(text: &str) -> Result<Vec<Event>, Fault> {
        let mut events = Vec::new();
        let used = parse(text.as_bytes(), |_, event| {
            events.push(event);
            true
        })?;
        assert_eq!(used, text.len());
        Ok(events)
    }

    fn fault_of(text: &str) -> (usize, String) {
        let fault = events(text).unwrap_err();
        (fault.at, fault.what)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let written = vec![
            Event::Superblock(Box::new(Superblock {
                version: 2,
                flags: 1,
                nr_data_blocks: 7,
                ..Default::default()
            })),
            Event::Def("12".into()),
            Event::Run(Run {
                thin: u64::MAX,
                data: 1,
                length: 1,
                time: 4,
            }),
            Event::DefEnd,
            Event::Device(Box::new(Device {
                dev_id: 9,
                ..Default::default()
            })),
            Event::Ref("12".into()),
            Event::Run(Run {
                thin: 5,
                data: 1 << 39,
                length: 1 << 40,
                time: u32::MAX,
            }),
            Event::DeviceEnd,
            Event::SuperblockEnd,
        ];
        let mut text = Vec::new();
        for event in &written {
            write::append(&mut text, write::Format::Xml, event);
        }
        assert_eq!(
            events(std::str::from_utf8(&text).unwrap()).unwrap(),
            written
        );
    }

    #[test]
    fn order_quotes_space_comments_and_declarations_do_not_matter() {
        let text = "<?xml version=\"1.0\"?><!DOCTYPE x>\n<!-- <ref/> -->\
            <device snap_time='1' creation_time = \"2\"\n transaction='3' mapped_blocks='4' dev_id='5' >text\
            <single_mapping time='1' data_block='2' origin_block='3' /></device><def name='a>b'/>";
        let expected = vec![
            Event::Device(Box::new(Device {
                dev_id: 5,
                mapped_blocks: 4,
                transaction: 3,
                creation_time: 2,
                snap_time: 1,
            })),
            Event::Run(Run {
                thin: 3,
                data: 2,
                length: 1,
                time: 1,
            }),
            Event::DeviceEnd,
            Event::Def("a>b".into()),
            Event::DefEnd,
        ];
        assert_eq!(events(text).unwrap(), expected);
    }

    #[test]
    fn faults_say_what_and_where() {
        assert_eq!(fault_of("<a/>"), (0, "unknown element 'a'".into()));
        assert_eq!(
            fault_of("  <ref/>"),
            (2, "element 'ref' lacks attribute 'name'".into())
        );
        assert_eq!(
            fault_of("<ref name='a'>"),
            (0, "element 'ref' must end with '/>'".into())
        );
        assert_eq!(
            fault_of("<ref name='a' b='1'/>"),
            (14, "unknown attribute 'b' in element 'ref'".into())
        );
        assert_eq!(
            fault_of("<ref name='a' name='b'/>"),
            (14, "attribute 'name' is given twice".into())
        );
        assert_eq!(
            fault_of("<ref name=a/>"),
            (5, "malformed attribute in element 'ref'".into())
        );
        assert_eq!(fault_of("<def name='&amp;'/>").0, 5);
        assert_eq!(
            fault_of("</ref>"),
            (0, "unexpected end of element 'ref'".into())
        );
        let mapping = "<single_mapping origin_block=\"1\" data_block=\"-2\" time=\"0\"/>";
        assert_eq!(
            fault_of(mapping),
            (
                33,
                "the value of attribute 'data_block' is not a number: '-2'".into()
            )
        );
        let mapping = "<single_mapping origin_block=\"1\" data_block=\"2\" time=\"4294967296\"/>";
        assert_eq!(
            fault_of(mapping).1,
            "the value of attribute 'time' is too large: 4294967296"
        );
        assert_eq!(fault_of("<![CDATA[x]]>").0, 0);
    }

    #[test]
    fn a_tag_that_goes_on_behind_the_end_is_left() {
        let text = "<def name=\"1\"/> <!-- > <ref name=\"1\"/> --> <ref name=\"1\"/>";
        let whole = events(text).unwrap();
        for cut in 0..text.len() {
            let mut found = Vec::new();
            let mut take = |_: usize, event| {
                found.push(event);
                true
            };
            let used = parse(&text.as_bytes()[..cut], &mut take).unwrap();
            let used = used + parse(&text.as_bytes()[used..], &mut take).unwrap();
            assert_eq!(used, text.len(), "cut at {cut}");
            assert_eq!(found, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_tag_without_an_end_is_refused() {
        let mut text = b"<ref name=\"".to_vec();
        text.resize(LONGEST_TOKEN + 20, b'x');
        assert_eq!(parse(&text, |_, _| true).unwrap_err().at, 0);
    }

    #[test]
    fn no_text_makes_it_panic() {
        let seed = std::env::var("DM_THIN_RS_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(1u64);
        println!("DM_THIN_RS_SEED={seed}");
        let mut state = seed;
        let mut random = move |bound: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % bound
        };
        let words: [&[u8]; 16] = [
            b"<",
            b">",
            b"/>",
            b"</",
            b"\"",
            b"'",
            b"=",
            b" ",
            b"name",
            b"ref",
            b"<single_mapping origin_block=\"",
            b"99999999999999999999",
            b"<!--",
            b"-->",
            b"\xff",
            b"def",
        ];
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..random(12))
                .flat_map(|_| words[random(words.len())].to_vec())
                .collect();
            let _ = parse(&text, |_, _| true);
        }
    }

    #[test]
    fn positions_count_lines_and_columns() {
        let position = Position::START.after(b"ab\ncd\n").after(b"efg");
        assert_eq!(position, Position { line: 3, column: 4 });
        assert_eq!(position.after(b"h\n"), Position { line: 4, column: 1 });
    }
}
