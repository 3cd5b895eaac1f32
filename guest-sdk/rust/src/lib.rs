//! Write a Dormouse function as one Rust type.
//!
//! A function runs in an *instance*, which Dormouse keeps between requests: awake while there is work, parked while
//! there is none. In a parked instance nothing runs. The type is that instance. Its fields are the state,
//! [`Function::initialize`] builds it, [`Function::handle`] answers a request, and there are two hooks:
//! [`Function::pre_freeze`] runs before each freeze, after the callers got their replies, and [`Function::pre_stop`]
//! runs once before the instance is stopped.
//!
//! # Quick start
//!
//! `dormouse new counter` creates a project like this one. A function is a library with these settings:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib", "rlib"]
//!
//! [dependencies]
//! dormouse-sdk = { path = "vendor/guest-sdk/rust" }
//! ```
//!
//! `src/lib.rs` defines the type and passes it to [`export!`]:
//!
//! ```
//! use std::cell::Cell;
//!
//! use dormouse_sdk::{Context, Function, Result};
//!
//! struct Counter {
//!     count: Cell<u64>,
//! }
//!
//! impl Function for Counter {
//!     type Event = String;
//!     type Reply = String;
//!
//!     async fn initialize(_: &Context) -> Result<Self> {
//!         Ok(Counter { count: Cell::new(0) })
//!     }
//!
//!     async fn handle(&self, _: &Context, name: String) -> Result<String> {
//!         if name.is_empty() {
//!             return Err("whom shall I greet?".into());
//!         }
//!         self.count.set(self.count.get() + 1);
//!         Ok(format!("Hello {name}, you are number {}.", self.count.get()))
//!     }
//!
//!     async fn pre_freeze(&self, _: &Context) {
//!         println!("{} greetings so far", self.count.get());
//!     }
//! }
//!
//! dormouse_sdk::export!(Counter);
//!
//! // The same type under plain `cargo test`:
//! use dormouse_sdk::testing::{Instance, block_on};
//!
//! let counter = Instance::<Counter>::default();
//! assert_eq!(block_on(counter.invoke("Ada")).unwrap(), "Hello Ada, you are number 1.");
//! assert_eq!(block_on(counter.invoke("")).unwrap_err(), "whom shall I greet?");
//! ```
//!
//! `cargo build --release --target wasm32-wasip2` makes the component, `dormouse up` serves it, and
//! `curl -d Ada http://127.0.0.1:8080/invoke/counter` calls it.
//!
//! # Several requests at once
//!
//! If the function's `concurrency` is above 1, a second [`handle`](Function::handle) may be called while the first one
//! waits in an `.await`. An instance has one thread, so state needs no locks: use `Cell` and `RefCell`. Do not hold a
//! `RefCell` borrow across an `.await`.
//!
//! # Architecture
//!
//! In reading order: `function` is the trait that an author implements, with `context`, `event` and `error` for its
//! parameters and results. [`spawn`], [`sleep`] and [`http`] are what a function may ask of its host; each of them
//! calls `platform`, which is `wasi` in a component and `native` under `cargo test`. `instance` keeps the state and
//! builds it once, with `once`. `export` connects an instance to the component's exports; [`testing`] runs one
//! natively.

#![deny(missing_docs, unsafe_code)]

mod context;
mod error;
mod event;
mod function;

pub mod http;
mod task;
mod time;

mod instance;
mod once;

#[doc(hidden)]
pub mod export;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasi;

#[cfg(not(target_family = "wasm"))]
use native as platform;
#[cfg(target_family = "wasm")]
use wasi as platform;

pub use crate::{
    context::Context,
    error::{Error, Result},
    event::{FromEvent, IntoReply, Json},
    function::Function,
    task::spawn,
    time::sleep,
};
