//! What all planes share: connections, header fields and problem documents.
//!
//! Nothing here knows what is asked for, or of whom.

pub mod headers;
pub mod linger;
pub mod listener;
pub mod problem;
mod timer;
