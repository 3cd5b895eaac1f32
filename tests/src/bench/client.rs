//! A blocking HTTP/1.1 client of one kept connection: deploys, asks for the bill, and times single calls.
//!
//! Not the load generator: this one reads whole replies and is simple.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// No single answer of a healthy server takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Client {
    stream: TcpStream,
    host: SocketAddr,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(host: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(host).with_context(|| format!("connect to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream, host })
    }

    /// Sends one request and reads its reply. `fields` are whole header lines, each with its line end.
    pub(crate) fn send(&mut self, method_and_path: &str, fields: &str, body: &[u8]) -> Result<Reply> {
        let (host, length) = (self.host, body.len());
        let head = format!("{method_and_path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{fields}\r\n");
        let whole = [head.as_bytes(), body].concat();
        self.stream.write_all(&whole).with_context(|| format!("send {method_and_path}"))?;
        self.read().with_context(|| format!("answer to {method_and_path}"))
    }

    /// Calls a function and insists on its success.
    pub(crate) fn invoke(&mut self, function: &str, event: &str) -> Result<Reply> {
        let reply = self.send(&format!("POST /invoke/{function}"), "", event.as_bytes())?;
        ensure!(reply.status == 200, "{function}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
        Ok(reply)
    }

    pub(crate) fn json(&mut self, path: &str) -> Result<Value> {
        let reply = self.send(&format!("GET {path}"), "", b"")?;
        ensure!(reply.status == 200, "GET {path}: {}", reply.status);
        Ok(serde_json::from_slice(&reply.body)?)
    }

    fn read(&mut self) -> Result<Reply> {
        let (mut bytes, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let read = self.stream.read(&mut chunk)?;
            ensure!(read > 0, "the connection was closed");
            bytes.extend_from_slice(&chunk[..read]);
            let Some((mut reply, start, length)) = parse_head(&bytes)? else { continue };
            if bytes.len() >= start + length {
                reply.body = bytes[start..start + length].to_vec();
                return Ok(reply);
            }
        }
    }
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// The reply without its body, where the body starts, and its length; none if the head is not whole yet.
fn parse_head(bytes: &[u8]) -> Result<Option<(Reply, usize, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(start) = response.parse(bytes)? else { return Ok(None) };
    let status = response.code.unwrap_or_default();
    let text =
        |field: &httparse::Header| (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned());
    let reply = Reply { status, fields: response.headers.iter().map(text).collect(), body: Vec::new() };
    let length = match reply.field("content-length") {
        Some(length) => length.parse()?,
        None if status == 204 => 0,
        None => bail!("a reply of status {status} has no content-length"),
    };
    Ok(Some((reply, start, length)))
}
