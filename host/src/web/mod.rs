//! What all planes share: connections, header fields and problem documents.
//!
//! Nothing here knows what is asked for, or of whom.

mod connection;
pub mod event;
mod gather;
pub mod headers;
pub mod linger;
pub mod listener;
pub mod problem;
pub mod self_signed;
pub mod service;
mod stream;
mod timer;
pub mod tls;
