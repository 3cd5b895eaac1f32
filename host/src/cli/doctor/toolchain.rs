//! Whether Rust functions can be built here. Without Rust a host still serves components that others built.

use std::path::Path;

use super::super::build::{TARGET, asked, has_target};
use super::Finding;

const RUST: &str = "rust";

pub(super) async fn check() -> Vec<Finding> {
    let here = Path::new(".");
    let rustc = match asked("rustc", &["--version"], here).await {
        Ok(version) => Finding::ok(RUST, version.trim()),
        Err(error) => {
            let missing = Finding::warn(RUST, format!("{error}; it is only needed to build functions in Rust"));
            return vec![
                missing.remedy(format!("install it from https://rustup.rs, then: rustup target add {TARGET}")),
            ];
        }
    };
    let cargo = match asked("cargo", &["--version"], here).await {
        Ok(version) => Finding::ok("cargo", version.trim()),
        Err(error) => Finding::warn("cargo", error.to_string()).remedy("install it from https://rustup.rs"),
    };
    let target = match has_target(here).await {
        Ok(true) => Finding::ok(TARGET, "installed"),
        Ok(false) => Finding::warn(TARGET, "missing; `dormouse build` adds it when it needs it")
            .remedy(format!("rustup target add {TARGET}")),
        Err(error) => Finding::warn(TARGET, error.to_string()),
    };
    vec![rustc, cargo, target]
}
