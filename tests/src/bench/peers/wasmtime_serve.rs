//! `wasmtime serve` of the version that the host embeds, with a `wasi:http` component that gives the same answer, or with one
//! that Dormouse runs as well.
//!
//! Three times: with a fresh instance for each request, the same with slots of memory, tables and stacks that stay
//! resident, and with instances that are kept for as many requests as may be, which is its fastest.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::Choice;
use crate::Options;
use crate::machine::{Cores, SERVER_CORE};
use crate::server::Server;

/// The crate whose version the host embeds as `wasmtime`.
const VERSION: &str = "48.0.8";
const TARGET: &str = "wasm32-wasip2";
const PACKAGE: &str = "peer-http-hello";
/// A component of WASI 0.3 is reused by default.
const FRESH: [&str; 1] = ["--max-instance-reuse-count=1"];
/// Slots of the pool are wiped in place, not given back to the kernel.
const RESIDENT: [&str; 5] = [
    "-Opooling-allocator=y",
    "-Opooling-memory-keep-resident=2097152",
    "-Opooling-table-keep-resident=65536",
    "-Opooling-async-stack-keep-resident=65536",
    "-Opooling-pagemap-scan=y",
];

pub(super) fn install(folder: &Path) -> Result<()> {
    if folder.join("bin/wasmtime").exists() {
        return Ok(());
    }
    let mut install = Command::new("cargo");
    super::run(install.args(["install", "wasmtime-cli", "--locked", "--version", VERSION, "--root"]).arg(folder))
}

const REUSE: [&str; 2] = ["--max-instance-reuse-count=1000000000", "--max-instance-concurrent-reuse-count=100"];

pub(super) fn start_fresh(folder: &Path, logs: &Path) -> Result<(Server, SocketAddr)> {
    serve(folder, logs, &FRESH, &component()?)
}

pub(super) fn start_fresh_tuned(folder: &Path, logs: &Path) -> Result<(Server, SocketAddr)> {
    serve(folder, logs, &tuned(Instances::Fresh), &component()?)
}

pub(super) fn start_reusing(folder: &Path, logs: &Path) -> Result<(Server, SocketAddr)> {
    serve(folder, logs, &tuned(Instances::Reused), &component()?)
}

/// What becomes of an instance after its request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instances {
    Fresh,
    Reused,
}

/// Starts it, tuned, with any component, unless no peers are wanted. What is missing is named in the output, and is no failure.
pub(crate) fn start_with(component: &Path, instances: Instances, options: &Options) -> Option<(Server, SocketAddr)> {
    if options.peers == Choice::None {
        return None;
    }
    let started = serve(&super::folder(), &options.out, &tuned(instances), component);
    started.inspect_err(|error| println!("  peer missing: {error:#}")).ok()
}

fn tuned(instances: Instances) -> Vec<&'static str> {
    let of_instances = match instances {
        Instances::Fresh => &FRESH[..],
        Instances::Reused => &REUSE[..],
    };
    [of_instances, &RESIDENT[..]].concat()
}

fn serve(folder: &Path, logs: &Path, flags: &[&str], component: &Path) -> Result<(Server, SocketAddr)> {
    let program = folder.join("bin/wasmtime");
    ensure!(program.exists(), "not installed; `--peers install` does that");
    let address = super::free_address()?;
    let mut command = Command::new(program);
    command.args(["serve", "-Scli", "-Sp3", "-Wcomponent-model-async", "--addr"]).arg(address.to_string());
    command.args(flags).arg(component);
    let mut server = Server::start(command, Cores::Only(SERVER_CORE), &logs.join("wasmtime-serve.log"))?;
    server.listens_at(address)?;
    Ok((server, address))
}

/// Builds the component; returns its path.
fn component() -> Result<std::path::PathBuf> {
    let target = tests::target();
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "--release", "--target", TARGET, "-p", PACKAGE]);
    super::run(build.current_dir(tests::repository()).env("CARGO_TARGET_DIR", &target))?;
    Ok(target.join(TARGET).join("release").join(format!("{}.wasm", PACKAGE.replace('-', "_"))))
}
