//! The bare server: axum, and nothing behind it. What no function host on the same HTTP stack can pass.
//!
//! It is this program in a process of its own, started with the hidden command `bare`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;

use crate::machine::Cores;
use crate::server::{self, Server};

use super::Peer;

/// Starts it as a process.
pub(crate) fn start(cores: Cores, logs: &Path) -> Result<Peer> {
    start_under(&[], cores, logs)
}

/// The same, run by another command.
pub(crate) fn start_under(wrapper: &[String], cores: Cores, logs: &Path) -> Result<Peer> {
    let mut command = server::command(wrapper, &server::this_program()?);
    command.arg("bare");
    let mut server = Server::start(command, cores, &logs.join("bare.log"))?;
    let first: Value = serde_json::from_str(&server.line()?)?;
    let address: SocketAddr = first["data"].as_str().context("an address")?.parse()?;
    Ok(Peer { name: "bare axum".to_owned(), server, address })
}

/// The server itself; runs until it is killed.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!(r#"{{"data": "{}"}}"#, listener.local_addr()?);
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(true); // As Dormouse does.
        });
        axum::serve(listener, Router::new().route("/invoke/{function}", post(hello))).await?;
        Ok(())
    })
}

async fn hello(event: Bytes) -> Response {
    let name = std::str::from_utf8(&event).unwrap_or_default();
    let octets = HeaderValue::from_static("application/octet-stream");
    ([(header::CONTENT_TYPE, octets)], format!("Hello, {name}!\n")).into_response()
}
