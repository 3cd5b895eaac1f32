//! The instances of all functions: a pool for each revision that has some, what the host can hold, and the reaper of idle
//! instances.
//!
//! `invoke` runs requests through [`Pinned::call`]; pools follow the catalog, of which `host` tells them, in
//! [`Pools::follow`]. A pool knows nothing of HTTP and names no engine; what it does is decided in `policy`, which is pure.

mod board;
mod capacity;
mod compute;
mod context;
mod counts;
mod entry;
mod metrics;
mod orders;
mod owner;
mod policy;
#[expect(clippy::module_inception, reason = "the file holds the type that the module is named after")]
mod pool;
mod pools;
mod reaper;
mod runner;
mod starting;
mod state;

pub use board::{Move, Moves};
pub use capacity::{Capacity, CapacityBounds, Reservation};
pub use counts::InstanceCounts;
pub use entry::InstanceSnapshot;
pub use metrics::Metrics;
pub use policy::{Bounds, Wanted};
pub use pool::{Pinned, Pool, PoolSettings, Refused, Request};
pub use pools::Pools;
