//! Everything that names wasmtime: the engine, what a component must export, the world it may import, its limits,
//! and [`Guest`], one instantiated component that runs only while somebody polls it.
//!
//! `instance` polls guests, `catalog` compiles and loads components. Nothing here knows request queues, lifecycle
//! states or HTTP status codes.

mod arena;
mod attribution;
mod blueprint;
mod bulk;
mod call;
mod capacity;
mod client;
mod code;
mod component;
mod delivery;
mod ending;
mod engine;
mod epoch;
mod exports;
mod funcs;
mod hooks;
mod host_pattern;
mod limits;
mod mailbox;
mod offered;
mod outbound;
mod outgoing;
mod output;
mod reach;
mod refusal;
mod repeat;
mod running;
mod sender;
mod trace;
mod world;

pub use blueprint::{Blueprint, Sandbox};
pub use call::{Call, CallContext, CallId, Entry, EventInput, Fault, Input, Reply, Returned};
pub use capacity::Capacity;
pub use code::{CodeFile, CompiledCode};
pub use component::Component;
pub use delivery::{Body, BodyError, Delivery, Response, ResponseBody, StreamedBody, without_framing};
pub use ending::{Ending, MemoryLack, Trap};
pub use engine::{Engine, compile};
pub use exports::{EntryNames, Export, Exports, Hook, HookName, Protocol};
pub use hooks::event_request;
pub use host_pattern::{HostPattern, InvalidPattern};
pub use mailbox::{Event, Preempted};
pub use reach::Network;
pub use refusal::Refusal;
pub use running::Guest;
pub use sender::{Sender, Sent};
