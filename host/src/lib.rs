//! Dormouse, a function host.
//!
//! One request's walk through the modules, which are listed in this order: [`http`] accepts the connection and reads
//! the event, [`catalog`] knows the function, [`pool`] finds an instance for it, [`instance`] drives that instance from
//! state to state, and [`guest`] runs its code, which only moves while it is polled. [`meter`] measures each poll and
//! [`ledger`] stores what was measured. [`control`] is the operators' door to all of them, never on a request's way.
//!
//! [`host`] puts both planes on the [`parts`] behind them; [`cli`] is the program. Only `guest` names the engine, only `http` and `control`
//! know status codes, and what decides (`instance::lifecycle`, `pool::policy`) has no clock, no lock and no I/O.

pub mod cli;
pub mod host;
pub mod parts;
pub mod http;
pub mod control;
pub mod catalog;
pub mod pool;
pub mod instance;
pub mod guest;
pub mod meter;
pub mod ledger;
pub mod log;
pub mod ids;
pub mod config;
pub mod machine;
pub mod shutdown;
pub mod telemetry;

pub use host::{Addresses, Host, Stopped};
