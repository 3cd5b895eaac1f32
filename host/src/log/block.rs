//! Lines as they are in the file: packed, and compressed.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::{Author, Line, Stream};
use crate::clock::{from_microseconds, microseconds};
use crate::ids::{InstanceId, KeyId, RequestId};
use crate::varint::{self, Bytes};

/// Bytes that a block has at most before it is compressed, beside its last line.
pub(super) const BYTES_MAX: usize = 128 << 10;
/// No block that this program wrote is larger.
const BYTES_LIMIT: u64 = 1 << 20;

const NOBODY: u64 = 0;
const UNKNOWN: u64 = 1;
const REQUEST: u64 = 2;
const REQUEST_WITH_KEY: u64 = 3;

/// Packs lines, of which there is one at least, into blocks.
pub(super) fn pack(lines: &[Line]) -> io::Result<Vec<(&[Line], Vec<u8>)>> {
    let mut blocks = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let mut out = Vec::new();
        let taken = rest.iter().take_while(|line| {
            let has_room = out.len() < BYTES_MAX;
            if has_room {
                put(&mut out, line);
            }
            has_room
        });
        let (block, later) = rest.split_at(taken.count());
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&out)?;
        blocks.push((block, packed.finish()?));
        rest = later;
    }
    Ok(blocks)
}

/// The lines of a block; those before a place where it cannot be read, if there is one.
pub(super) fn unpack(packed: &[u8]) -> Vec<Line> {
    let mut out = Vec::new();
    // What was read before a fault stays.
    let _ = DeflateDecoder::new(packed).take(BYTES_LIMIT).read_to_end(&mut out);
    let mut bytes = Bytes(&out);
    let mut lines = Vec::new();
    while !bytes.is_empty()
        && let Some(line) = line(&mut bytes)
    {
        lines.push(line);
    }
    lines
}

fn put(out: &mut Vec<u8>, line: &Line) {
    varint::put(out, microseconds(line.time));
    varint::put(out, line.sequence);
    varint::put(out, Stream::ALL.iter().position(|stream| *stream == line.stream).unwrap_or_default() as u64);
    varint::put_text(out, &line.version);
    out.extend(line.instance.as_u64().to_le_bytes());
    match &line.author {
        Author::Nobody => varint::put(out, NOBODY),
        Author::Unknown => varint::put(out, UNKNOWN),
        Author::Request { id, key } => {
            varint::put(out, if key.is_some() { REQUEST_WITH_KEY } else { REQUEST });
            varint::put_text(out, id.as_str());
            out.extend(key.iter().flat_map(|key| key.as_u64().to_le_bytes()));
        }
    }
    varint::put_text(out, &line.text);
}

fn line(bytes: &mut Bytes<'_>) -> Option<Line> {
    let time = from_microseconds(bytes.number()?);
    let sequence = bytes.number()?;
    let stream = *Stream::ALL.get(usize::try_from(bytes.number()?).ok()?)?;
    let version = Arc::from(bytes.text()?);
    let instance = InstanceId::from_u64(u64::from_le_bytes(bytes.array()?));
    let author = match bytes.number()? {
        NOBODY => Author::Nobody,
        UNKNOWN => Author::Unknown,
        kind @ (REQUEST | REQUEST_WITH_KEY) => {
            let id = bytes.text()?.parse::<RequestId>().ok()?;
            let has_key = kind == REQUEST_WITH_KEY;
            let key = if has_key { Some(KeyId::from_u64(u64::from_le_bytes(bytes.array()?))) } else { None };
            Author::Request { id, key }
        }
        _ => return None,
    };
    Some(Line { time, sequence, stream, version, instance, author, text: bytes.text()?.to_owned() })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_line() -> impl Strategy<Value = Line> {
        let id = prop_oneof!["[a-z0-9-]{1,40}", Just("clock~2026-01-01T00:00:00Z".to_owned())];
        let request = (id, any::<Option<u64>>())
            .prop_map(|(id, key)| Author::Request { id: id.parse().unwrap(), key: key.map(KeyId::from_u64) });
        let author = prop_oneof![Just(Author::Nobody), Just(Author::Unknown), request];
        let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr), Just(Stream::Host)];
        let text = prop_oneof![".{0,200}", (0..30_000usize).prop_map(|length| "x".repeat(length))];
        (0..1u64 << 50, any::<u64>(), stream, "[A-Z0-9]{0,8}", any::<u64>(), author, text).prop_map(
            |(time, sequence, stream, version, instance, author, text)| Line {
                time: from_microseconds(time),
                sequence,
                stream,
                version: version.into(),
                instance: InstanceId::from_u64(instance),
                author,
                text,
            },
        )
    }

    proptest! {
        #[test]
        fn lines_survive(lines in prop::collection::vec(any_line(), 1..40)) {
            let blocks = pack(&lines).unwrap();
            let read: Vec<Line> = blocks.iter().flat_map(|(_, packed)| unpack(packed)).collect();
            prop_assert_eq!(&read, &lines);
            for (of_block, packed) in &blocks {
                prop_assert_eq!(*of_block, unpack(packed));
            }
        }

        #[test]
        fn bytes_that_nobody_wrote_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            unpack(&bytes);
        }

        #[test]
        fn a_block_that_was_cut_off_has_the_lines_before_the_cut(lines in prop::collection::vec(any_line(), 1..8), cut in 0usize..4000) {
            let (_, packed) = pack(&lines).unwrap().remove(0);
            let read = unpack(&packed[..cut.min(packed.len())]);
            prop_assert_eq!(&read[..], &lines[..read.len()]);
        }
    }
}
