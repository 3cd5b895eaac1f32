//! Parking and suspending, thawing and resuming: windows open and close, clocks stop and go on.

use std::time::Duration;

use super::Instance;
use crate::instance::lifecycle::Event;
use crate::meter::{Account, Rest, WindowMeter};
use crate::traces::Followed;

impl Instance {
    pub(super) fn open_window(&mut self, parked: Duration) {
        self.windows += 1;
        self.followed = Followed::default();
        self.vitals.add_window();
        let account = Account {
            function: self.terms.function.clone(),
            version: self.terms.version.get(),
            instance: self.id,
            memory_mb: self.terms.memory_mb,
            basis: self.terms.basis,
        };
        let rest = Rest { time: parked, bytes: self.guest.memory_bytes() };
        self.meter = Some(WindowMeter::open(&account, self.windows, rest, self.now, self.terms.post.clone()));
    }

    pub(super) fn close_window(&mut self) {
        if let Some(mut meter) = self.meter.take() {
            meter.memory_peak(self.guest.memory_bytes_peak());
            meter.close(self.now);
        }
    }

    /// Makes a parked instance a plain value: no timer, no open window, no idle connection, no spare memory.
    pub(super) fn rest(&mut self) {
        self.close_window();
        self.guest.rest();
        self.timer = None;
        self.linger_ends = None;
        self.running.shrink_to_fit();
        self.reports.shrink_to(1);
        self.since = self.now;
    }

    pub(super) fn suspend(&mut self) {
        self.abandon_hook();
        if let Some(meter) = &mut self.meter {
            meter.pause(self.now);
        }
        self.timer = None;
        self.linger_ends = None;
        self.since = self.now;
        self.step(Event::Suspend);
    }

    /// Deadlines stand still while an instance is suspended.
    pub(super) fn resume_clocks(&mut self, rested: Duration) {
        for running in &mut self.running {
            running.deadline += rested;
        }
        if let Some(meter) = &mut self.meter {
            meter.resume(self.now);
        }
    }
}
