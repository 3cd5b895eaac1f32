//! Dormouse, a function host.
//!
//! One request's walk through the modules, which are listed in this order: [`server`] listens, [`data`] reads the address
//! and makes a call of it, and [`invoke`] is the one door: it resolves the name in the [`catalog`] and pins what it finds.
//! [`pool`] lends an instance, [`instance`] drives that instance from state to state, and [`guest`] runs its code, which
//! only moves while it is polled. [`meter`] measures each poll and [`ledger`] stores what was measured.
//!
//! [`queue`] keeps asynchronous invocations until they have run, and sends them through the same door;
//! [`trigger`] hands it what timers want to run.
//!
//! [`access`] knows the keys of callers and operators, and remembers what operators changed.
//!
//! [`host`] is all that a plane may ask for; [`admin`] is the operators' plane over it, never on a request's way;
//! [`console`] is its pages for people; [`fc`] is Function Compute's APIs, on both listeners; [`operator`] is who may
//! change what, and [`web`] is what planes share. [`cli`] is the program. Only `guest` names the engine, only `web` and
//! the planes know status codes, and what decides (`instance::lifecycle`, `pool::policy`) has no clock, no lock and no
//! I/O.
//!
//! What many of them use: [`config`] has the checked settings, [`ids`] the names and identifiers, [`sqlite`] opens the
//! databases, [`varint`] packs their rows, [`private`] closes files to other users, [`clock`] tells the date, [`chance`]
//! draws, [`figures`] writes numbers for people, [`csv`] tables for spreadsheets, [`proxies`] says whose word is taken for
//! who a caller is, [`room`] shares memory out, [`memory`] says whether there is any, [`machine`] reads the kernel's
//! limits, [`log`] keeps functions' output in memory and on disk, [`telemetry`] is the host's own log, [`traces`] sends
//! spans to collectors, and [`shutdown`] ends it all.

pub mod cli;
pub mod server;
pub mod data;
pub mod admin;
pub mod console;
pub mod fc;
pub mod operator;
pub mod web;
pub mod trigger;
pub mod queue;
pub mod host;
pub mod invoke;
pub mod access;
pub mod catalog;
pub mod pool;
pub mod instance;
pub mod guest;
pub mod meter;
pub mod ledger;
pub mod sqlite;
pub mod varint;
pub mod memory;
pub mod room;
pub mod log;
pub mod ids;
pub mod clock;
pub mod chance;
pub mod figures;
pub mod csv;
pub mod config;
pub mod machine;
pub mod private;
pub mod proxies;
pub mod shutdown;
pub mod telemetry;
pub mod traces;

pub use server::{Addresses, Server, Stopped};
