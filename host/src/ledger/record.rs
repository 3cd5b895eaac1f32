//! Windows and invocations as they are stored: a compact binary form that is written once and read in order.
//!
//! Times are microseconds since 1970, spans are nanoseconds. A change of any field needs a new version of the schema.

use serde::{Deserialize, Serialize};

use super::time::{to_ns, to_unix_us};
use crate::meter::{Basis, InvocationReading, WindowReading};

/// A window whose figures still grow.
pub(super) const OPEN: u8 = 0;
/// A window that ended in order.
pub(super) const ENDED: u8 = 1;
/// A window whose host was killed.
pub(super) const LOST: u8 = 2;

/// Something stored that belongs to the time in which it starts.
pub(super) trait Record<'a>: Deserialize<'a> {
    /// The number of its kind in the table of blocks.
    const KIND: i64;

    fn start_us(&self) -> i64;
    fn function(&self) -> &'a str;
    /// Orders records that start in the same microsecond; `number` is the record's own.
    fn tie(&self, number: u64) -> u128;
}

/// A kind of record, whatever it borrows from.
pub(super) trait Kind {
    type Of<'a>: Record<'a>;
}

/// [`Window`].
pub(super) enum Windows {}

impl Kind for Windows {
    type Of<'a> = Window<'a>;
}

/// [`Invocation`].
pub(super) enum Invocations {}

impl Kind for Invocations {
    type Of<'a> = Invocation<'a>;
}

/// One active window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Window<'a> {
    pub(super) function: &'a str,
    pub(super) version: &'a str,
    pub(super) instance: u64,
    pub(super) sequence: u32,
    pub(super) start_us: i64,
    pub(super) at_us: i64,
    pub(super) state: u8,
    pub(super) busy: bool,
    pub(super) open_ns: u64,
    pub(super) executed_ns: u64,
    pub(super) duration_ns: u64,
    pub(super) requests: u32,
    pub(super) hook_calls: u32,
    pub(super) memory_bytes_peak: u64,
    pub(super) memory_mb: u32,
    pub(super) by_duration: bool,
    pub(super) parked_ns: u64,
    pub(super) parked_bytes: u64,
}

impl<'a> From<&'a WindowReading> for Window<'a> {
    fn from(reading: &'a WindowReading) -> Window<'a> {
        Window {
            function: reading.function.as_str(),
            version: &reading.version,
            instance: reading.instance.as_u64(),
            sequence: reading.sequence,
            start_us: to_unix_us(reading.start),
            at_us: to_unix_us(reading.at),
            state: if reading.ended { ENDED } else { OPEN },
            busy: reading.busy && !reading.ended,
            open_ns: to_ns(reading.open),
            executed_ns: to_ns(reading.executed),
            duration_ns: to_ns(reading.duration),
            requests: reading.requests,
            hook_calls: reading.hook_calls,
            memory_bytes_peak: reading.memory_bytes_peak,
            memory_mb: reading.memory_mb,
            by_duration: reading.basis == Basis::Duration,
            parked_ns: to_ns(reading.parked),
            parked_bytes: reading.parked_bytes,
        }
    }
}

impl Window<'_> {
    /// Closes an open window of a host that was killed and last known to be alive at `alive_us`. A busy window's clocks
    /// ran until then; one that was not busy lingered, which nobody is charged for, or was suspended.
    pub(super) fn lose(&mut self, alive_us: i64) {
        if self.busy {
            let more_ns = alive_us.saturating_sub(self.at_us).max(0).unsigned_abs().saturating_mul(1000);
            self.open_ns = self.open_ns.saturating_add(more_ns);
            self.duration_ns = self.duration_ns.saturating_add(more_ns);
            self.at_us = self.at_us.max(alive_us);
        }
        (self.state, self.busy) = (LOST, false);
    }
}

impl<'a> Record<'a> for Window<'a> {
    const KIND: i64 = 1;

    fn start_us(&self) -> i64 {
        self.start_us
    }

    fn function(&self) -> &'a str {
        self.function
    }

    fn tie(&self, _number: u64) -> u128 {
        u128::from(self.instance) << 32 | u128::from(self.sequence)
    }
}

/// One request that was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Invocation<'a> {
    pub(super) request: &'a str,
    pub(super) function: &'a str,
    pub(super) version: &'a str,
    pub(super) instance: Option<u64>,
    pub(super) start_us: i64,
    pub(super) queued_ns: u64,
    pub(super) handler_ns: u64,
    pub(super) outcome: &'a str,
    pub(super) delivered: bool,
}

impl<'a> From<&'a InvocationReading> for Invocation<'a> {
    fn from(reading: &'a InvocationReading) -> Invocation<'a> {
        Invocation {
            request: reading.request.as_str(),
            function: reading.function.as_str(),
            version: &reading.version,
            instance: reading.instance.map(|instance| instance.as_u64()),
            start_us: to_unix_us(reading.start),
            queued_ns: to_ns(reading.queued),
            handler_ns: to_ns(reading.handler),
            outcome: reading.outcome,
            delivered: reading.delivered,
        }
    }
}

impl<'a> Record<'a> for Invocation<'a> {
    const KIND: i64 = 2;

    fn start_us(&self) -> i64 {
        self.start_us
    }

    fn function(&self) -> &'a str {
        self.function
    }

    fn tie(&self, number: u64) -> u128 {
        number.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::window;
    use super::*;

    #[test]
    fn only_a_busy_window_is_charged_until_the_last_sign_of_life() {
        let reading = WindowReading { ended: false, busy: true, ..window("f") };
        let busy = Window { at_us: 1000, duration_ns: 7, open_ns: 9, ..Window::from(&reading) };
        let idle = Window { busy: false, ..busy.clone() };
        for (mut window, alive_us, grown_ns, at_us) in
            [(busy.clone(), 3000, 2_000_000, 3000), (busy, 500, 0, 1000), (idle, 3000, 0, 1000)]
        {
            window.lose(alive_us);
            assert_eq!((window.duration_ns, window.open_ns, window.at_us), (7 + grown_ns, 9 + grown_ns, at_us));
            assert_eq!((window.state, window.busy), (LOST, false));
        }
    }
}
