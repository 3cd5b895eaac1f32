//! A server that holds whoever calls it until the test lets it go: a guest that does stands still in a known place.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;

/// A closed gate. Functions that come here need `"allowedOutboundHosts": ["127.0.0.1"]`.
pub(crate) struct Gate(TcpListener);

/// A guest that stands at the gate, within a call.
pub(crate) struct Held(TcpStream);

impl Gate {
    pub(crate) async fn closed() -> Gate {
        Gate(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    /// The gate's address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.0.local_addr().expect("an address"))
    }

    /// The probe's step that goes to the gate and stays there.
    pub(crate) fn step(&self) -> Value {
        json!({"http-get": self.url()})
    }

    /// Waits for the next guest.
    pub(crate) async fn arrival(&self) -> Held {
        let arrived = timeout(PATIENCE, self.0.accept()).await.expect("a guest comes in time");
        let (mut stream, _) = arrived.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the guest sends a request"));
        }
        Held(stream)
    }
}

impl Held {
    /// Lets the guest go on.
    pub(crate) async fn release(mut self) {
        let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        self.0.write_all(reply).await.expect("the guest reads");
    }
}
