//! The bare server: axum, and nothing behind it. What no function host on the same HTTP stack can pass.
//!
//! It is this program in a process of its own, started with the hidden command `bare`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

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
    listening(command, cores, logs)
}

/// The same, with TLS or without.
pub(crate) fn start_with(tls: bool, cores: Cores, logs: &Path) -> Result<Peer> {
    let mut command = server::command(&[], &server::this_program()?);
    command.arg("bare").args(tls.then_some("--tls"));
    listening(command, cores, logs)
}

fn listening(command: Command, cores: Cores, logs: &Path) -> Result<Peer> {
    let mut server = Server::start(command, cores, &logs.join("bare.log"))?;
    let first: Value = serde_json::from_str(&server.line()?)?;
    let address: SocketAddr = first["data"].as_str().context("an address")?.parse()?;
    Ok(Peer { name: "bare axum".to_owned(), server, address })
}

/// The server itself; runs until it is killed.
pub(crate) fn serve(tls: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!(r#"{{"data": "{}"}}"#, listener.local_addr()?);
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(true); // As Dormouse does.
        });
        let router = Router::new().route("/invoke/{function}", post(hello));
        if tls {
            axum::serve(Secure { listener, tls: acceptor()? }, router).await?;
        } else {
            axum::serve(listener, router).await?;
        }
        Ok(())
    })
}

/// A listener with TLS.
struct Secure<L> {
    listener: L,
    tls: TlsAcceptor,
}

impl<L: axum::serve::Listener> axum::serve::Listener for Secure<L>
where
    L::Io: Sync,
{
    type Io = TlsStream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (TlsStream<L::Io>, L::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await;
            // One after another: what is measured are requests, not handshakes.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

fn acceptor() -> Result<TlsAcceptor> {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![signed.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn hello(event: Bytes) -> Response {
    let name = std::str::from_utf8(&event).unwrap_or_default();
    let octets = HeaderValue::from_static("application/octet-stream");
    ([(header::CONTENT_TYPE, octets)], format!("Hello, {name}!\n")).into_response()
}
