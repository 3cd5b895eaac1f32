//! Node's own HTTP server, as it comes with the `node` that is installed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::machine::{Cores, SERVER_CORE};
use crate::server::Server;

pub(super) fn install(_: &Path) -> Result<()> {
    match Command::new("node").arg("--version").output() {
        Ok(_) => Ok(()),
        Err(_) => bail!("`node` is not on the path; install it with the system's package manager"),
    }
}

pub(super) fn start(_: &Path, logs: &Path) -> Result<(Server, SocketAddr)> {
    let mut command = Command::new("node");
    command.arg(super::scripts().join("node.js"));
    let mut server = Server::start(command, Cores::Only(SERVER_CORE), &logs.join("node.log"))?;
    let address = server.line()?.trim().parse()?;
    Ok((server, address))
}
