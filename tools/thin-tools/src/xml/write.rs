// SPDX-License-Identifier: GPL-2.0

//! Events to text, byte for byte as scripts and other tools know it.

use super::Device;
use super::Event;
use super::Superblock;
use thin_format::thin::Run;

/// The forms that [`append`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For `thin_restore` and for programs.
    Xml,
    /// For people.
    HumanReadable,
}

impl Format {
    /// The format of this name on the command line.
    pub fn from_name(name: &str) -> Option<Format> {
        match name {
            "xml" => Some(Format::Xml),
            "human_readable" => Some(Format::HumanReadable),
            _ => None,
        }
    }
}

/// Appends `event` to `text`.
///
/// The pieces join to one text in whatever portions the events arrive: nothing depends on what came before.
pub fn append(text: &mut Vec<u8>, format: Format, event: &Event) {
    match format {
        Format::Xml => append_xml(text, event),
        Format::HumanReadable => append_human(text, event),
    }
}

fn append_xml(text: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Run(run) => append_xml_run(text, run),
        Event::Superblock(superblock) => append_xml_superblock(text, superblock),
        Event::SuperblockEnd => put(text, "</superblock>"),
        Event::Def(name) => {
            put(text, "  <def name=\"");
            put(text, name);
            put(text, "\">\n");
        }
        Event::DefEnd => put(text, "  </def>\n"),
        Event::Device(device) => append_xml_device(text, device),
        Event::DeviceEnd => put(text, "  </device>\n"),
        Event::Ref(name) => {
            put(text, "    <ref name=\"");
            put(text, name);
            put(text, "\"/>\n");
        }
    }
}

fn append_xml_superblock(text: &mut Vec<u8>, superblock: &Superblock) {
    put(text, "<superblock uuid=\"");
    put(text, &superblock.uuid);
    put_field(text, "\" time=\"", superblock.time.into());
    put_field(text, "\" transaction=\"", superblock.transaction);
    if superblock.flags != 0 {
        put_field(text, "\" flags=\"", superblock.flags.into());
    }
    put_field(text, "\" version=\"", superblock.version.into());
    put_field(
        text,
        "\" data_block_size=\"",
        superblock.data_block_size.into(),
    );
    put_field(text, "\" nr_data_blocks=\"", superblock.nr_data_blocks);
    put(text, "\">\n");
}

fn append_xml_device(text: &mut Vec<u8>, device: &Device) {
    put_field(text, "  <device dev_id=\"", device.dev_id);
    put_field(text, "\" mapped_blocks=\"", device.mapped_blocks);
    put_field(text, "\" transaction=\"", device.transaction);
    put_field(text, "\" creation_time=\"", device.creation_time.into());
    put_field(text, "\" snap_time=\"", device.snap_time.into());
    put(text, "\">\n");
}

fn append_xml_run(text: &mut Vec<u8>, run: &Run) {
    let mut line = Line::new();
    if run.length == 1 {
        line.put(b"    <single_mapping origin_block=\"");
        line.put_number(run.thin);
        line.put(b"\" data_block=\"");
        line.put_number(run.data);
    } else {
        line.put(b"    <range_mapping origin_begin=\"");
        line.put_number(run.thin);
        line.put(b"\" data_begin=\"");
        line.put_number(run.data);
        line.put(b"\" length=\"");
        line.put_number(run.length);
    }
    line.put(b"\" time=\"");
    line.put_number(run.time.into());
    line.put(b"\"/>\n");
    text.extend_from_slice(line.bytes());
}

fn append_human(text: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Run(run) => append_human_run(text, run),
        Event::Superblock(superblock) => {
            put(text, "begin superblock: \"");
            put(text, &superblock.uuid);
            put_field(text, "\", ", superblock.time.into());
            put_field(text, ", ", superblock.transaction);
            put_field(text, ", ", superblock.flags.into());
            put_field(text, ", ", superblock.version.into());
            put_field(text, ", ", superblock.data_block_size.into());
            put_field(text, ", ", superblock.nr_data_blocks);
            if let Some(snapshot) = superblock.metadata_snap {
                put_field(text, ", ", snapshot);
            }
            put(text, "\n");
        }
        Event::SuperblockEnd => put(text, "end superblock\n"),
        Event::Def(name) => {
            put(text, "def: ");
            put(text, name);
            put(text, "\n");
        }
        Event::DefEnd | Event::DeviceEnd => put(text, "\n"),
        Event::Device(device) => {
            put_field(text, "device: ", device.dev_id);
            put_field(text, "\nmapped_blocks: ", device.mapped_blocks);
            put_field(text, "\ntransaction: ", device.transaction);
            put_field(text, "\ncreation time: ", device.creation_time.into());
            put_field(text, "\nsnap time: ", device.snap_time.into());
            put(text, "\n");
        }
        Event::Ref(name) => {
            put(text, "    ref: ");
            put(text, name);
            put(text, "\n");
        }
    }
}

fn append_human_run(text: &mut Vec<u8>, run: &Run) {
    let last = run.length.saturating_sub(1);
    let mut line = Line::new();
    line.put(b"    (");
    line.put_number(run.thin);
    line.put(b"..");
    line.put_number(run.thin.saturating_add(last));
    line.put(b") -> (");
    line.put_number(run.data);
    line.put(b"..");
    line.put_number(run.data.saturating_add(last));
    line.put(b"), ");
    line.put_number(run.time.into());
    line.put(b"\n");
    text.extend_from_slice(line.bytes());
}

fn put(text: &mut Vec<u8>, piece: &str) {
    text.extend_from_slice(piece.as_bytes());
}

fn put_field(text: &mut Vec<u8>, before: &str, number: u64) {
    let mut line = Line::new();
    line.put(before.as_bytes());
    line.put_number(number);
    text.extend_from_slice(line.bytes());
}

/// A line being put together. Mappings come by the million: one copy into the text for each line is much less
/// work than one for each word.
struct Line {
    bytes: [u8; Line::CAPACITY],
    used: usize,
}

impl Line {
    // The longest line: 31 + 15 + 10 + 8 + 4 characters around four numbers of at most 20 digits.
    const CAPACITY: usize = 192;

    fn new() -> Line {
        Line {
            bytes: [0; Line::CAPACITY],
            used: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    #[inline(always)]
    fn put(&mut self, piece: &[u8]) {
        self.bytes[self.used..self.used + piece.len()].copy_from_slice(piece);
        self.used += piece.len();
    }

    #[inline(always)]
    fn put_number(&mut self, mut number: u64) {
        const PAIRS: &[u8; 200] = b"00010203040506070809\
            10111213141516171819\
            20212223242526272829\
            30313233343536373839\
            40414243444546474849\
            50515253545556575859\
            60616263646566676869\
            70717273747576777879\
            80818283848586878889\
            90919293949596979899";
        let digits = decimal_digits(number);
        let mut end = self.used + digits;
        self.used = end;
        while number >= 100 {
            let pair = (number % 100) as usize * 2;
            number /= 100;
            end -= 2;
            self.bytes[end..end + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
        }
        if number >= 10 {
            let pair = number as usize * 2;
            self.bytes[end - 2..end].copy_from_slice(&PAIRS[pair..pair + 2]);
        } else {
            self.bytes[end - 1] = b'0' + number as u8;
        }
    }
}

fn decimal_digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: Format, events: &[Event]) -> String {
        let mut text = Vec::new();
        for event in events {
            append(&mut text, format, event);
        }
        String::from_utf8(text).unwrap()
    }

    fn example() -> Vec<Event> {
        vec![
            Event::Superblock(Box::new(Superblock {
                time: 3,
                transaction: 8,
                version: 2,
                data_block_size: 128,
                nr_data_blocks: 100,
                ..Superblock::default()
            })),
            Event::Def("7".into()),
            Event::Run(Run {
                thin: 0,
                data: 9,
                length: 10,
                time: 1,
            }),
            Event::DefEnd,
            Event::Device(Box::new(Device {
                dev_id: 1,
                mapped_blocks: 11,
                transaction: 4,
                creation_time: 0,
                snap_time: 3,
            })),
            Event::Ref("7".into()),
            Event::Run(Run {
                thin: 10,
                data: 99,
                length: 1,
                time: 2,
            }),
            Event::DeviceEnd,
            Event::Device(Box::default()),
            Event::DeviceEnd,
            Event::SuperblockEnd,
        ]
    }

    #[test]
    fn xml_has_the_known_form() {
        let expected = "<superblock uuid=\"\" time=\"3\" transaction=\"8\" version=\"2\" data_block_size=\"128\" \
            nr_data_blocks=\"100\">\n\
            \x20 <def name=\"7\">\n\
            \x20   <range_mapping origin_begin=\"0\" data_begin=\"9\" length=\"10\" time=\"1\"/>\n\
            \x20 </def>\n\
            \x20 <device dev_id=\"1\" mapped_blocks=\"11\" transaction=\"4\" creation_time=\"0\" snap_time=\"3\">\n\
            \x20   <ref name=\"7\"/>\n\
            \x20   <single_mapping origin_block=\"10\" data_block=\"99\" time=\"2\"/>\n\
            \x20 </device>\n\
            \x20 <device dev_id=\"0\" mapped_blocks=\"0\" transaction=\"0\" creation_time=\"0\" snap_time=\"0\">\n\
            \x20 </device>\n\
            </superblock>";
        assert_eq!(text(Format::Xml, &example()), expected);
    }

    #[test]
    fn the_form_for_people_is_the_known_one() {
        let expected = "begin superblock: \"\", 3, 8, 0, 2, 128, 100\n\
            def: 7\n\
            \x20   (0..9) -> (9..18), 1\n\
            \n\
            device: 1\nmapped_blocks: 11\ntransaction: 4\ncreation time: 0\nsnap time: 3\n\
            \x20   ref: 7\n\
            \x20   (10..10) -> (99..99), 2\n\
            \n\
            device: 0\nmapped_blocks: 0\ntransaction: 0\ncreation time: 0\nsnap time: 0\n\
            \n\
            end superblock\n";
        assert_eq!(text(Format::HumanReadable, &example()), expected);
    }

    #[test]
    fn every_number_of_digits_is_written_right() {
        let mut numbers = vec![0, u64::MAX];
        let mut power = 1u64;
        while let Some(next) = power.checked_mul(10) {
            numbers.extend([power - 1, power, power + 1, power * 7]);
            power = next;
        }
        for number in numbers {
            let mut line = Line::new();
            line.put_number(number);
            assert_eq!(line.bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn the_longest_line_fits() {
        let run = Run {
            thin: u64::MAX,
            data: u64::MAX,
            length: u64::MAX,
            time: u32::MAX,
        };
        text(Format::Xml, &[Event::Run(run)]);
        text(Format::HumanReadable, &[Event::Run(run)]);
    }
}
