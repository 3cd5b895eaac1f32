//! What all planes share: connections, header fields, problem documents, and the span of a request.
//!
//! Nothing here knows what is asked for, or of whom.

pub mod headers;
pub mod linger;
pub mod listener;
pub mod problem;
pub mod room;
pub mod span;
mod timer;
