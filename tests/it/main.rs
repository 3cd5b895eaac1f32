//! Tests as sentences, against a real host on ports of the system's choice.
//!
//! Each test has a host of its own, a child process with its own state directory; see `support`. One file a subject,
//! named after the part of the host or of the design that it tests.

#![expect(clippy::unwrap_used, reason = "what a test expects and does not find ends it")]
#![expect(clippy::disallowed_methods, reason = "clients and servers of tests run beside them, and end with them")]

mod support;

mod kinds;
mod lifecycle;
mod freeze;
mod timeouts;
mod suspend;
mod policy;
mod fairness;
mod billing;
mod durability;
mod serverless;
mod shutdown;
mod errors;
mod http;
mod http2;
mod tls;
mod keys;
mod queue;
mod triggers;
mod function_compute;
mod components;
mod uploads;
mod compiling;
mod bounds;
mod memory;
mod sandbox;
mod outbound;
mod logs;
mod metrics;
mod versions;
mod aliases;
mod admin;
mod console;
mod examples;
mod languages;
mod cli;
mod docs;
mod tidy;
mod traces;
