//! workerd, Cloudflare's open runtime for JavaScript and WebAssembly, from npm.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::machine::{Cores, SERVER_CORE};
use crate::server::Server;

pub(super) fn install(folder: &Path) -> Result<()> {
    if program(folder).exists() {
        return Ok(());
    }
    super::run(Command::new("npm").args(["install", "--silent", "--no-save", "workerd", "--prefix"]).arg(folder))
}

pub(super) fn start(folder: &Path, logs: &Path) -> Result<(Server, SocketAddr)> {
    let program = program(folder);
    ensure!(program.exists(), "not installed; `--peers install` does that");
    let address = super::free_address()?;
    let mut command = Command::new(program);
    command.arg("serve").arg(super::scripts().join("workerd.capnp")).arg(format!("--socket-addr=http={address}"));
    let mut server = Server::start(command, Cores::Only(SERVER_CORE), &logs.join("workerd.log"))?;
    server.listens_at(address)?;
    Ok((server, address))
}

fn program(folder: &Path) -> std::path::PathBuf {
    folder.join("node_modules/.bin/workerd")
}
