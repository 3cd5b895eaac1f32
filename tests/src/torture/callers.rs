//! Callers that mean harm, or are slow, which comes to the same.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::host::Host;
use crate::{Ended, note};

const HALF_HEADS: usize = 300;
const UNREAD_REPLIES: usize = 30;
const SLOW_EVENTS: usize = 30;

/// An event that asks for a large reply.
const LARGE_REPLY: &str = r#"{"do": [{"reply-bytes": 16000000}]}"#;

pub(crate) fn enemies(host: &Host, ended: &Ended) -> Vec<JoinHandle<()>> {
    let post = |function: &str, length: usize, event: &str| {
        format!("POST /invoke/{function} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{event}")
    };
    let large = post("replies-much", LARGE_REPLY.len(), LARGE_REPLY);
    let slow = post("neighbour", 5_000_000, "");
    let half_heads = (0..HALF_HEADS).map(|_| ("sends half a head", "POST /invoke/neigh".to_owned()));
    let unread = (0..UNREAD_REPLIES).map(|_| ("never reads", large.clone()));
    let events = (0..SLOW_EVENTS).map(|_| ("sends slowly", slow.clone()));
    let address = host.data;
    let attack = |(who, bytes): (&'static str, String)| {
        let ended = ended.clone();
        tokio::spawn(async move {
            loop {
                let outcome = match TcpStream::connect(address).await {
                    Ok(connection) => hold(connection, &bytes).await,
                    Err(error) => error.to_string(),
                };
                note(&ended, who, outcome);
            }
        })
    };
    half_heads.chain(unread).chain(events).map(attack).collect()
}

/// Sends what there is to send, then next to nothing, until the host has had enough.
async fn hold(mut connection: TcpStream, bytes: &str) -> String {
    if connection.write_all(bytes.as_bytes()).await.is_err() {
        return "closed at once".to_owned();
    }
    for _ in 0..40 {
        sleep(Duration::from_millis(500)).await;
        // Without reading what came: whoever does not read learns of the end by writing.
        if connection.write_all(b"x").await.is_err() {
            return "closed by the host".to_owned();
        }
    }
    let mut head = [0; 12];
    match connection.read(&mut head).await {
        Ok(count) => format!("given up after 20 s: {:?}", String::from_utf8_lossy(&head[..count])),
        Err(_) => "closed by the host".to_owned(),
    }
}
