//! `wasmtime serve` of the version that the host embeds, with a `wasi:http` component that gives the same answer.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::server::Server;

/// The crate whose version the host embeds as `wasmtime`.
const VERSION: &str = "48.0.8";

pub(super) fn install(folder: &Path) -> Result<()> {
    if folder.join("bin/wasmtime").exists() {
        return Ok(());
    }
    super::run(
        Command::new("cargo").args(["install", "wasmtime-cli", "--locked", "--version", VERSION, "--root"]).arg(folder),
    )
}

pub(super) fn start(folder: &Path, _: &Path) -> Result<(Server, SocketAddr)> {
    ensure!(folder.join("bin/wasmtime").exists(), "not installed; `--peers install` does that");
    bail!("there is no `wasi:http` component to serve yet");
}

pub(super) fn start_reusing(folder: &Path, logs: &Path) -> Result<(Server, SocketAddr)> {
    start(folder, logs)
}
