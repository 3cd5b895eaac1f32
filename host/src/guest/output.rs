//! A guest's standard output and error: whole lines go to the function's log, at a bounded rate.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::limits::Exceeded;
use super::mailbox::Mailbox;
use crate::ids::InstanceId;
use crate::log::{LINE_BYTES_MAX, LogWriter, Stream};

/// Bytes that a stream may write in a burst.
const BURST_BYTES: f64 = (8 << 20) as f64;
/// Bytes per second that it may write on average.
const BYTES_PER_SECOND: f64 = (1 << 20) as f64;
/// Bytes that a single write may contain.
const WRITE_BYTES: usize = 64 << 10;

/// One of a guest's two output streams. Every stream that the guest opens on it writes to the same lines.
#[derive(Clone)]
pub(super) struct Output(Arc<Mutex<Lines>>);

struct Lines {
    stream: Stream,
    log: LogWriter,
    instance: InstanceId,
    mailbox: Arc<Mailbox>,
    partial: Vec<u8>,
    allowance: f64,
    counted: Instant,
}

impl Output {
    pub(super) fn new(stream: Stream, log: LogWriter, instance: InstanceId, mailbox: Arc<Mailbox>) -> Output {
        let lines = Lines {
            stream,
            log,
            instance,
            mailbox,
            partial: Vec::new(),
            allowance: BURST_BYTES,
            counted: Instant::now(),
        };
        Output(Arc::new(Mutex::new(lines)))
    }

    fn take(&self, bytes: &[u8]) -> Result<(), Exceeded> {
        self.0.lock().expect("no holder of this lock panics").take(bytes)
    }
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Exceeded> {
        let now = Instant::now();
        let earned = now.duration_since(self.counted).as_secs_f64() * BYTES_PER_SECOND;
        self.counted = now;
        self.allowance = (self.allowance + earned).min(BURST_BYTES) - bytes.len() as f64;
        if self.allowance < 0.0 {
            // `wasi:cli` 0.3 streams cannot trap the guest from here, so its next epoch check does.
            self.mailbox.gauge.output_exceeded.store(true, Ordering::Relaxed);
            return Err(Exceeded::Output);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.append(end);
                    self.write_line();
                }
                None => self.append(piece),
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(LINE_BYTES_MAX / 2) {
            if self.partial.len() + chunk.len() > LINE_BYTES_MAX {
                self.cut_line();
            }
            self.partial.extend_from_slice(chunk);
        }
    }

    /// Ends a line that is too long, without splitting its last character.
    fn cut_line(&mut self) {
        let incomplete = match std::str::from_utf8(&self.partial) {
            Err(error) if error.error_len().is_none() => self.partial.split_off(error.valid_up_to()),
            Ok(_) | Err(_) => Vec::new(),
        };
        self.write_line();
        self.partial = incomplete;
    }

    fn write_line(&mut self) {
        let mut text = String::from_utf8_lossy(&self.partial).into_owned();
        if text.ends_with('\r') {
            text.pop();
        }
        self.partial.clear();
        self.partial.shrink_to(256);
        let author = self.mailbox.author();
        tracing::debug!(target: "guest", instance = %self.instance, stream = self.stream.as_str(), "{text}");
        self.log.write(self.stream, self.instance, author, text);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.partial.is_empty() {
            self.write_line();
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes).map_err(|exceeded| StreamError::Trap(exceeded.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.take(bytes).map(|()| bytes.len());
        Poll::Ready(written.map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
