//! HTTP/2 by hand (RFC 9113), to do what no client does.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

/// On frames of settings and pings.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// One connection to a plane.
pub(crate) struct Frames {
    stream: TcpStream,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error of a frame that ends a stream or the connection.
    pub(crate) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

impl Frames {
    /// Connects with these settings.
    pub(crate) async fn connect(plane: &str, settings: &[(u16, u32)]) -> Frames {
        let address = plane.strip_prefix("http://").expect("a plane's address");
        let stream = TcpStream::connect(address).await.expect("the plane takes connections");
        let mut frames = Frames { stream };
        frames.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("the plane takes a preface");
        let pairs = settings.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        frames.send(SETTINGS, 0, 0, &pairs.collect::<Vec<u8>>()).await;
        frames
    }

    /// Sends a frame; false if the plane takes no more.
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.stream.write_all(&[&head, payload].concat()).await.is_ok()
    }

    /// Begins a request without a body.
    pub(crate) async fn get(&mut self, stream: u32, path: &str) -> bool {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &fields(path)).await
    }

    /// The next frame; none if the connection is closed.
    pub(crate) async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut head)).await.expect("a frame comes in time");
        read.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until such a frame comes; none if the connection is closed before.
    pub(crate) async fn read_to(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}

/// The fields of a request, as HPACK writes them (RFC 7541): three of its static table, and two with a value.
pub(crate) fn fields(path: &str) -> Vec<u8> {
    const GET: u8 = 0x82;
    const HTTP: u8 = 0x86;
    const AUTHORITY: u8 = 0x01;
    const PATH: u8 = 0x04;
    let mut block = vec![GET, HTTP];
    for (name, value) in [(AUTHORITY, "test"), (PATH, path)] {
        block.extend([name, u8::try_from(value.len()).expect("a short value")]);
        block.extend(value.as_bytes());
    }
    block
}
