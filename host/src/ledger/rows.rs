//! How a block stores windows and invocations: in few bytes that are cheap to write.
//!
//! Most of the ledger's cost is writing bytes to SQLite. So a row leaves out what all rows of the block share
//! (function, version), refers back to the values of earlier rows ([`Memory`]), and stores times relative to the
//! block's base. The code that writes a row is next to the code that reads it, because they must agree.
//!
//! Rows are written in `Drop`, so writing cannot panic.

use std::fmt;
use std::time::Duration;

use super::time::{to_ns, to_unix_us};
use crate::ids::{InstanceId, KeyId};
use crate::meter::{self, Basis, CalledBy, InvocationReading, WindowReading};
use crate::varint::{self, Bytes};

/// Instances, keys and outcomes that a block can refer back to. The more there are, the longer a search takes.
const KNOWN_MAX: usize = 32;

/// References to an instance or an access key: none; a new one, whose eight bytes follow; from here on, a known one.
const NO_ID: u64 = 0;
const NEW_ID: u64 = 1;
const FIRST_ID: u64 = 2;

/// References to an outcome, stored above the lowest bit: a new one, whose text follows; from here on, a known one.
const NEW_OUTCOME: u64 = 0;
const FIRST_OUTCOME: u64 = 1;

/// The first number of a request's identifier. This one: the sixteen bytes of a UUID follow. Any other: a text of this
/// length follows.
const UUID: u64 = 0;

/// Precedes the identifier if the call was not a first attempt from the data plane. The caller and the attempt follow.
/// No identifier is a text of this length.
const ORIGIN: u64 = 1 << 20;

/// Precedes the first invocation of a block whose rows have the executed time and a reference to the access key. Blocks of
/// schema version 4 and before have neither.
const WITH_KEYS: u64 = ORIGIN + 1;

/// The caller and the attempt of nearly all calls.
const USUAL: (CalledBy, u32) = (CalledBy::Data, 1);

/// Bits of a window's flags; the rest is its state.
const BUSY: u64 = 1;
const BY_DURATION: u64 = 2;
const STATE_SHIFT: u32 = 2;

/// The state of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Ended,
    Lost,
}

/// A window as stored. Times are microseconds since 1970, spans are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowRow {
    pub(super) instance: InstanceId,
    pub(super) sequence: u32,
    pub(super) start_us: i64,
    pub(super) at_us: i64,
    pub(super) state: State,
    pub(super) busy: bool,
    pub(super) basis: Basis,
    pub(super) open_ns: u64,
    pub(super) executed_ns: u64,
    pub(super) duration_ns: u64,
    pub(super) requests: u32,
    pub(super) hook_calls: u32,
    pub(super) memory_bytes_peak: u64,
    pub(super) memory_mb: u32,
    pub(super) parked_ns: u64,
    pub(super) parked_bytes: u64,
}

impl From<&WindowReading> for WindowRow {
    fn from(reading: &WindowReading) -> WindowRow {
        WindowRow {
            instance: reading.instance,
            sequence: reading.sequence,
            start_us: to_unix_us(reading.start),
            at_us: to_unix_us(reading.at),
            state: if reading.ended { State::Ended } else { State::Open },
            busy: reading.busy && !reading.ended,
            basis: reading.basis,
            open_ns: to_ns(reading.open),
            executed_ns: to_ns(reading.executed),
            duration_ns: to_ns(reading.duration),
            requests: reading.requests,
            hook_calls: reading.hook_calls,
            memory_bytes_peak: reading.memory_bytes_peak,
            memory_mb: reading.memory_mb,
            parked_ns: to_ns(reading.parked),
            parked_bytes: reading.parked_bytes,
        }
    }
}

impl WindowRow {
    /// The charged epochs if `basis` were its basis.
    pub(super) fn epochs_by(&self, basis: Basis) -> u64 {
        meter::epochs(Duration::from_nanos(match basis {
            Basis::Execution => self.executed_ns,
            Basis::Duration => self.duration_ns,
        }))
    }

    /// Charged epochs.
    pub(super) fn epochs(&self) -> u64 {
        self.epochs_by(self.basis)
    }
}

/// A request's identifier as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// One that the host made.
    Uuid([u8; 16]),
    /// One that the caller chose.
    Text(&'a str),
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).hyphenated().fmt(f),
            Request::Text(text) => f.write_str(text),
        }
    }
}

/// An invocation as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvocationRow<'a> {
    pub(super) request: Request<'a>,
    pub(super) instance: Option<InstanceId>,
    pub(super) start_us: i64,
    pub(super) queued_ns: u64,
    pub(super) handler_ns: u64,
    pub(super) executed_ns: u64,
    pub(super) key: Option<KeyId>,
    pub(super) outcome: &'a str,
    pub(super) delivered: bool,
    pub(super) called_by: CalledBy,
    pub(super) attempt: u32,
}

/// Identifiers of a block's earlier rows, so that later ones refer back to them.
#[derive(Default)]
struct Ids(Vec<u64>);

impl Ids {
    fn learn(&mut self, id: u64) {
        if self.0.len() < KNOWN_MAX {
            self.0.push(id);
        }
    }

    fn put(&mut self, id: Option<u64>, out: &mut Vec<u8>) {
        let Some(id) = id else { return varint::put(out, NO_ID) };
        if let Some(place) = self.0.iter().position(|known| *known == id) {
            varint::put(out, FIRST_ID + place as u64);
        } else {
            varint::put(out, NEW_ID);
            out.extend_from_slice(&id.to_le_bytes());
            self.learn(id);
        }
    }

    /// Outer `None`: the bytes are damaged. Inner `None`: there is no identifier.
    fn take(&mut self, bytes: &mut Bytes<'_>) -> Option<Option<u64>> {
        Some(match bytes.number()? {
            NO_ID => None,
            NEW_ID => {
                let id = u64::from_le_bytes(bytes.array()?);
                self.learn(id);
                Some(id)
            }
            known => Some(*self.0.get((known - FIRST_ID) as usize)?),
        })
    }
}

/// The values of a block's earlier rows. At every row, the code that writes and the code that reads have the same ones.
#[derive(Default)]
pub(super) struct Memory<'a> {
    instances: Ids,
    outcomes: Vec<&'a str>,
    keys: Ids,
    /// Whether the block's invocations have keys; none before its first invocation.
    with_keys: Option<bool>,
    memory_bytes_peak: u64,
    parked_bytes: u64,
}

impl<'a> Memory<'a> {
    fn learn_outcome(&mut self, outcome: &'a str) {
        if self.outcomes.len() < KNOWN_MAX {
            self.outcomes.push(outcome);
        }
    }

    fn put_outcome(&mut self, outcome: &'a str, delivered: bool, out: &mut Vec<u8>) {
        let known = self.outcomes.iter().position(|known| *known == outcome);
        let reference = known.map_or(NEW_OUTCOME, |place| FIRST_OUTCOME + place as u64);
        varint::put(out, reference << 1 | u64::from(delivered));
        if known.is_none() {
            varint::put_text(out, outcome);
            self.learn_outcome(outcome);
        }
    }

    fn take_outcome(&mut self, bytes: &mut Bytes<'a>) -> Option<(&'a str, bool)> {
        let number = bytes.number()?;
        let outcome = match number >> 1 {
            NEW_OUTCOME => {
                let outcome = bytes.text()?;
                self.learn_outcome(outcome);
                outcome
            }
            known => self.outcomes.get((known - FIRST_OUTCOME) as usize)?,
        };
        Some((outcome, number & 1 > 0))
    }

    /// Appends `row`, which starts at `base_us` or later.
    pub(super) fn put_window(&mut self, row: &WindowRow, base_us: i64, out: &mut Vec<u8>) {
        self.instances.put(Some(row.instance.as_u64()), out);
        varint::put(out, row.sequence.into());
        varint::put(out, row.start_us.wrapping_sub(base_us).cast_unsigned());
        varint::put_signed(out, row.at_us.wrapping_sub(row.start_us));
        let by_duration = row.basis == Basis::Duration;
        let flags = (u64::from(row.busy) * BUSY) | (u64::from(by_duration) * BY_DURATION);
        varint::put(out, flags | (row.state as u64) << STATE_SHIFT);
        for number in [row.open_ns, row.executed_ns, row.duration_ns, row.requests.into(), row.hook_calls.into()] {
            varint::put(out, number);
        }
        varint::put_signed(out, row.memory_bytes_peak.wrapping_sub(self.memory_bytes_peak).cast_signed());
        varint::put(out, row.memory_mb.into());
        varint::put(out, row.parked_ns);
        varint::put_signed(out, row.parked_bytes.wrapping_sub(self.parked_bytes).cast_signed());
        (self.memory_bytes_peak, self.parked_bytes) = (row.memory_bytes_peak, row.parked_bytes);
    }

    /// The next window of `bytes`. `None` if they are damaged.
    pub(super) fn take_window(&mut self, base_us: i64, bytes: &mut Bytes<'a>) -> Option<WindowRow> {
        let instance = InstanceId::from_u64(self.instances.take(bytes)??);
        let sequence = bytes.small()?;
        let start_us = base_us.wrapping_add(bytes.number()?.cast_signed());
        let at_us = start_us.wrapping_add(bytes.signed()?);
        let flags = bytes.number()?;
        let state = match flags >> STATE_SHIFT {
            0 => State::Open,
            1 => State::Ended,
            2 => State::Lost,
            _ => return None,
        };
        let row = WindowRow {
            instance,
            sequence,
            start_us,
            at_us,
            state,
            busy: flags & BUSY > 0,
            basis: if flags & BY_DURATION > 0 { Basis::Duration } else { Basis::Execution },
            open_ns: bytes.number()?,
            executed_ns: bytes.number()?,
            duration_ns: bytes.number()?,
            requests: bytes.small()?,
            hook_calls: bytes.small()?,
            memory_bytes_peak: self.memory_bytes_peak.wrapping_add(bytes.signed()?.cast_unsigned()),
            memory_mb: bytes.small()?,
            parked_ns: bytes.number()?,
            parked_bytes: self.parked_bytes.wrapping_add(bytes.signed()?.cast_unsigned()),
        };
        (self.memory_bytes_peak, self.parked_bytes) = (row.memory_bytes_peak, row.parked_bytes);
        Some(row)
    }

    /// The next invocation of `bytes`. `None` if they are damaged.
    pub(super) fn take_invocation(&mut self, base_us: i64, bytes: &mut Bytes<'a>) -> Option<InvocationRow<'a>> {
        let with_keys = match self.with_keys {
            Some(known) => known,
            None => *self.with_keys.insert(takes(WITH_KEYS, bytes)?),
        };
        let (called_by, attempt) = take_origin(bytes)?;
        let request = take_request(bytes)?;
        let instance = self.instances.take(bytes)?.map(InstanceId::from_u64);
        let start_us = base_us.wrapping_add(bytes.number()?.cast_signed());
        let (queued_ns, handler_ns) = (bytes.number()?, bytes.number()?);
        let executed_ns = if with_keys { bytes.number()? } else { 0 };
        let key = if with_keys { self.keys.take(bytes)?.map(KeyId::from_u64) } else { None };
        let (outcome, delivered) = self.take_outcome(bytes)?;
        Some(InvocationRow {
            request,
            instance,
            start_us,
            queued_ns,
            handler_ns,
            executed_ns,
            key,
            outcome,
            delivered,
            called_by,
            attempt,
        })
    }
}

impl Memory<'static> {
    /// Appends `reading`, which starts at `base_us` or later.
    pub(super) fn put_invocation(&mut self, reading: &InvocationReading, base_us: i64, out: &mut Vec<u8>) {
        if self.with_keys.replace(true).is_none() {
            varint::put(out, WITH_KEYS);
        }
        if (reading.called_by, reading.attempt) != USUAL {
            varint::put(out, ORIGIN);
            varint::put(out, reading.called_by as u64);
            varint::put(out, reading.attempt.into());
        }
        put_request(reading.request.as_str(), out);
        self.instances.put(reading.instance.map(InstanceId::as_u64), out);
        varint::put(out, to_unix_us(reading.start).wrapping_sub(base_us).cast_unsigned());
        varint::put(out, to_ns(reading.queued));
        varint::put(out, to_ns(reading.handler));
        varint::put(out, to_ns(reading.executed));
        self.keys.put(reading.key.map(KeyId::as_u64), out);
        self.put_outcome(reading.outcome, reading.delivered, out);
    }
}

fn put_request(request: &str, out: &mut Vec<u8>) {
    match parse_uuid(request.as_bytes()) {
        Some(bytes) => {
            varint::put(out, UUID);
            out.extend_from_slice(&bytes);
        }
        None => varint::put_text(out, request),
    }
}

/// Whether `mark` is next; then it is taken.
fn takes(mark: u64, bytes: &mut Bytes<'_>) -> Option<bool> {
    let mut ahead = *bytes;
    let is_next = ahead.number()? == mark;
    if is_next {
        *bytes = ahead;
    }
    Some(is_next)
}

fn take_origin(bytes: &mut Bytes<'_>) -> Option<(CalledBy, u32)> {
    if !takes(ORIGIN, bytes)? {
        return Some(USUAL);
    }
    let number = bytes.number()?;
    let called_by = CalledBy::ALL.into_iter().find(|called_by| *called_by as u64 == number)?;
    Some((called_by, bytes.small()?))
}

fn take_request<'a>(bytes: &mut Bytes<'a>) -> Option<Request<'a>> {
    if takes(UUID, bytes)? {
        return Some(Request::Uuid(bytes.array()?));
    }
    Some(Request::Text(bytes.text()?))
}

/// The bytes of a UUID, if `Request`'s `Display` writes them as exactly this `text`.
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    /// Where the digits of each byte are.
    const DIGITS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let text: &[u8; 36] = text.try_into().ok()?;
    let mut wrong = DASHES.iter().fold(0, |wrong, at| wrong | (text[*at] ^ b'-'));
    let bytes = DIGITS.map(|at| {
        let (high, low) = (DIGIT_VALUES[usize::from(text[at])], DIGIT_VALUES[usize::from(text[at + 1])]);
        wrong |= (high | low) & NO_DIGIT;
        high << 4 | low
    });
    (wrong == 0).then_some(bytes)
}

/// The value in [`DIGIT_VALUES`] of a letter that is not a lower-case hexadecimal digit.
const NO_DIGIT: u8 = 0xf0;

/// The value of each hexadecimal digit. A table is fast, and every request's identifier is parsed with it.
static DIGIT_VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::tests::{invocation, window};
    use super::*;

    const BASE: i64 = 1_000_000;

    #[test]
    fn windows_survive_whatever_their_figures() {
        let small = WindowRow { start_us: BASE, ..WindowRow::from(&window("f")) };
        let large = WindowRow {
            instance: InstanceId::random(),
            sequence: u32::MAX,
            start_us: BASE + 2_000_000,
            at_us: 0,
            state: State::Lost,
            busy: true,
            basis: Basis::Duration,
            open_ns: u64::MAX,
            executed_ns: u64::MAX - 1,
            duration_ns: u64::MAX - 2,
            requests: u32::MAX,
            hook_calls: u32::MAX,
            memory_bytes_peak: u64::MAX,
            memory_mb: u32::MAX,
            parked_ns: u64::MAX,
            parked_bytes: u64::MAX,
        };
        let open = WindowRow { state: State::Open, at_us: i64::MAX, ..small };
        let rows = [small, large, open, large, small, small];
        let (mut memory, mut out) = (Memory::default(), Vec::new());
        rows.iter().for_each(|row| memory.put_window(row, BASE, &mut out));
        let (mut memory, mut bytes) = (Memory::default(), Bytes(&out));
        for row in rows {
            assert_eq!(memory.take_window(BASE, &mut bytes), Some(row));
        }
        assert!(bytes.is_empty());
        let (mut memory, mut bytes) = (Memory::default(), Bytes(&out[..out.len() - 1]));
        let whole = std::iter::from_fn(|| memory.take_window(BASE, &mut bytes)).count();
        assert_eq!(whole, rows.len() - 1, "the last one lacks a byte");
    }

    #[test]
    fn invocations_survive_with_more_instances_than_a_block_knows() {
        let instances: Vec<InstanceId> = (0..KNOWN_MAX + 3).map(|_| InstanceId::random()).collect();
        let mut readings = Vec::new();
        for number in 0..3 * instances.len() {
            let mut reading = invocation("f");
            reading.instance = (number % 7 > 0).then(|| instances[number % instances.len()]);
            reading.outcome = ["ok", "cancelled", "function-busy"][number % 3];
            reading.delivered = number % 2 > 0;
            reading.start = UNIX_EPOCH + Duration::from_micros(BASE.unsigned_abs() + number as u64);
            reading.queued = Duration::from_nanos(1 << (number % 64));
            reading.called_by = CalledBy::ALL[number % CalledBy::ALL.len()];
            reading.attempt = 1 + number as u32 % 3;
            reading.executed = Duration::from_micros(number as u64);
            reading.key = (number % 3 > 0).then(|| KeyId::from_u64(number as u64 % (KNOWN_MAX as u64 + 5)));
            if number % 5 == 0 {
                reading.request = crate::ids::RequestId::from_caller(&"x".repeat(1 + number)).unwrap();
            }
            readings.push(reading);
        }
        let (mut memory, mut out) = (Memory::default(), Vec::new());
        readings.iter().for_each(|reading| memory.put_invocation(reading, BASE, &mut out));
        let (mut memory, mut bytes) = (Memory::default(), Bytes(&out));
        for reading in readings {
            let row = memory.take_invocation(BASE, &mut bytes).unwrap();
            assert_eq!(row.request.to_string(), reading.request.as_str());
            assert_eq!((row.instance, row.start_us), (reading.instance, to_unix_us(reading.start)));
            assert_eq!((row.queued_ns, row.handler_ns), (to_ns(reading.queued), to_ns(reading.handler)));
            assert_eq!((row.outcome, row.delivered), (reading.outcome, reading.delivered));
            assert_eq!((row.called_by, row.attempt), (reading.called_by, reading.attempt));
            assert_eq!((row.executed_ns, row.key), (to_ns(reading.executed), reading.key));
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn rows_of_before_there_were_keys_are_read() {
        // Two invocations as schema version 4 wrote them: a text of one letter, no instance, at the base, and `ok`.
        let first = [1, b'x', 0, 0, 5, 7, 1, 2, b'o', b'k'];
        let second = [1, b'y', 0, 1, 5, 7, 3];
        let bytes = [&first[..], &second[..]].concat();
        let (mut memory, mut bytes) = (Memory::default(), Bytes(&bytes));
        for (request, start_us) in [("x", BASE), ("y", BASE + 1)] {
            let row = memory.take_invocation(BASE, &mut bytes).unwrap();
            assert_eq!((row.request, row.start_us, row.outcome), (Request::Text(request), start_us, "ok"));
            assert_eq!((row.queued_ns, row.handler_ns, row.executed_ns, row.key), (5, 7, 0, None));
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn only_identifiers_that_can_be_written_again_become_bytes() {
        let uuid = "0192f0a1-b2c3-7d4e-8f50-123456789abc";
        assert_eq!(Request::Uuid(parse_uuid(uuid.as_bytes()).unwrap()).to_string(), uuid);
        for at in 0..uuid.len() {
            for other in ["A", "g", "-", "0"] {
                let mut text = uuid.to_owned();
                text.replace_range(at..=at, other);
                if let Some(bytes) = parse_uuid(text.as_bytes()) {
                    assert_eq!(Request::Uuid(bytes).to_string(), text);
                }
            }
        }
        assert_eq!(parse_uuid(&uuid.as_bytes()[1..]), None);
        assert_eq!(parse_uuid(uuid.to_uppercase().as_bytes()), None);
    }

    #[test]
    fn a_row_is_short() {
        let (mut memory, mut out) = (Memory::default(), Vec::new());
        let reading = invocation("f");
        let base_us = to_unix_us(reading.start) - 1_500_000;
        memory.put_invocation(&reading, base_us, &mut out);
        out.clear();
        memory.put_invocation(&reading, base_us, &mut out);
        assert!(out.len() <= 30, "{} bytes", out.len());
        memory.put_window(&WindowRow::from(&window("f")), base_us, &mut out);
        out.clear();
        memory.put_window(&WindowRow::from(&window("f")), base_us, &mut out);
        assert!(out.len() <= 30, "{} bytes", out.len());
    }
}
