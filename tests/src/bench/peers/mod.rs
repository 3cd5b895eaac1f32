//! Servers to compare with, each answering `POST /invoke/hello` with the same bytes as the function `hello`.
//!
//! The bare server is always there. The others come from their registries, into a folder below `target`, when asked.

pub(crate) mod bare;
mod node;
pub(crate) mod wasmtime_serve;
mod workerd;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::server::Server;

/// Which servers to compare with, beside the bare one.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// None.
    None,
    /// Those that are installed.
    Installed,
    /// Install what is missing first; this takes long.
    Install,
}

/// A server that runs.
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

/// How to get and start one kind of server.
struct Kind {
    name: &'static str,
    install: fn(&Path) -> Result<()>,
    /// Starts it, logging into the second folder; an error says what is missing.
    start: fn(&Path, &Path) -> Result<(Server, SocketAddr)>,
}

const KINDS: [Kind; 5] = [
    Kind { name: FRESH_WASM, install: wasmtime_serve::install, start: wasmtime_serve::start_fresh },
    Kind { name: FRESH_WASM_TUNED, install: wasmtime_serve::install, start: wasmtime_serve::start_fresh_tuned },
    Kind { name: REUSED_WASM, install: wasmtime_serve::install, start: wasmtime_serve::start_reusing },
    Kind { name: "workerd", install: workerd::install, start: workerd::start },
    Kind { name: "node", install: node::install, start: node::start },
];

/// `wasmtime serve` with a fresh instance for each request.
pub(crate) const FRESH_WASM: &str = "wasmtime serve, fresh";
/// The same, tuned.
pub(crate) const FRESH_WASM_TUNED: &str = "wasmtime serve, fresh, tuned";
/// With instances that serve many requests, tuned.
pub(crate) const REUSED_WASM: &str = "wasmtime serve, reuse, tuned";

/// Starts all that were chosen. What is missing is named in the output, and is no failure.
pub(crate) fn start(choice: Choice, logs: &Path) -> Vec<Peer> {
    let folder = folder();
    let mut peers = Vec::new();
    for kind in KINDS.iter().filter(|_| choice != Choice::None) {
        let started = match choice {
            Choice::Install => (kind.install)(&folder).and_then(|()| (kind.start)(&folder, logs)),
            Choice::None | Choice::Installed => (kind.start)(&folder, logs),
        };
        match started {
            Ok((server, address)) => peers.push(Peer { name: kind.name.to_owned(), server, address }),
            Err(error) => println!("  peer missing: {}: {error:#}", kind.name),
        }
    }
    peers
}

/// Where peers are installed.
fn folder() -> PathBuf {
    tests::target().join("bench-peers")
}

/// The folder of the scripts that peers run.
fn scripts() -> PathBuf {
    tests::repository().join("tests/src/bench/peers")
}

/// An address that was free a moment ago, for servers that cannot choose one themselves.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
