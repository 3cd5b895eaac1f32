//! One instance: its state machine, the requests in it, and the driver that polls its guest.
//!
//! `pool` makes instances, runs them through [`Instance::poll_next`], and acts on what they report. An instance knows
//! neither the pool nor HTTP: it is handed jobs and orders through its [`Inbox`] and reports what became of them.

mod decide;
mod driver;
mod inbox;
mod job;
mod lifecycle;
mod metrics;
mod order;
mod terms;

pub use crate::guest::Input;
pub use driver::{Answered, Clock, Instance, Report};
pub use inbox::Inbox;
pub use job::{Answer, Caller, Ended, Job, Outcome, Start, Timings};
pub use lifecycle::State;
pub use metrics::{HookTimes, Metrics};
pub use order::{CutOff, Order, StopReason};
pub use terms::{Terms, Vitals};
