//! A guest's standard output and error: whole lines go to the function's log, at a bounded rate.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::mailbox::Mailbox;
use crate::ids::{InstanceId, RequestId};
use crate::log::{Author, LINE_BYTES_MAX, LogWriter, Stream};

/// Bytes that a stream may write in a burst.
const BURST_BYTES: f64 = (8 << 20) as f64;
/// Bytes per second that it may write on average.
const BYTES_PER_SECOND: f64 = (1 << 20) as f64;
/// After a drop, output is taken again once so many bytes may be written.
const RESUME_BYTES: f64 = (1 << 20) as f64;
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
    /// Who began the partial line; none if there is none.
    author: Option<Author>,
    allowance: f64,
    counted: Instant,
    dropped: Dropped,
}

/// Output that was dropped since the last line that was not.
#[derive(Default)]
struct Dropped {
    lines: u64,
    bytes: u64,
    /// The last byte was not the end of a line.
    ends_in_line: bool,
}

impl Dropped {
    fn add(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        let ends = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        // A line that goes on is counted where it begins.
        self.lines += ends + u64::from(*last != b'\n') - u64::from(self.ends_in_line);
        self.bytes += bytes.len() as u64;
        self.ends_in_line = *last != b'\n';
    }
}

impl Output {
    pub(super) fn new(stream: Stream, log: LogWriter, instance: InstanceId, mailbox: Arc<Mailbox>) -> Output {
        let lines = Lines {
            stream,
            log,
            instance,
            mailbox,
            partial: Vec::new(),
            author: None,
            allowance: BURST_BYTES,
            counted: Instant::now(),
            dropped: Dropped::default(),
        };
        Output(Arc::new(Mutex::new(lines)))
    }

    fn take(&self, bytes: &[u8]) {
        self.lock().take(bytes);
    }

    /// Called when a call has returned: a line without an end that its request began is a line.
    pub(super) fn end_line_of(&self, request: &RequestId) {
        let mut lines = self.lock();
        if lines.author.as_ref().is_some_and(|author| matches!(author, Author::Request { id, .. } if id == request)) {
            lines.write_line();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        let earned = now.duration_since(self.counted).as_secs_f64() * BYTES_PER_SECOND;
        self.counted = now;
        self.allowance = (self.allowance + earned).min(BURST_BYTES);
        // After a drop it waits for a good part of the allowance, so that not every other line is a marker.
        let least = if self.dropped.bytes > 0 { RESUME_BYTES } else { 0.0 };
        if self.allowance < least.max(bytes.len() as f64) {
            self.dropped.add(bytes);
            return;
        }
        self.allowance -= bytes.len() as f64;
        let rest = self.resume(bytes);
        for piece in rest.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.append(end);
                    self.write_line();
                }
                None => self.append(piece),
            }
        }
    }

    /// Says what was dropped, if anything, and returns what of `bytes` is not the rest of a dropped line.
    fn resume<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.dropped.bytes == 0 {
            return bytes;
        }
        let rest = match (self.dropped.ends_in_line, bytes.iter().position(|byte| *byte == b'\n')) {
            (false, _) => bytes,
            (true, Some(end)) => &bytes[end + 1..],
            (true, None) => &bytes[bytes.len()..],
        };
        self.dropped.add(&bytes[..bytes.len() - rest.len()]);
        if rest.is_empty() && self.dropped.ends_in_line {
            return rest; // Still the same line.
        }
        self.tell_dropped();
        rest
    }

    /// Writes the marker of dropped lines.
    fn tell_dropped(&mut self) {
        let Dropped { lines, bytes, .. } = std::mem::take(&mut self.dropped);
        if bytes == 0 {
            return;
        }
        if !self.partial.is_empty() {
            self.write_line();
        }
        let text = format!(
            "{lines} lines of {} ({bytes} bytes) were dropped here: an instance may write {} MiB a second",
            self.stream.as_str(),
            BYTES_PER_SECOND as u64 >> 20
        );
        self.log.write(Stream::Host, self.instance, self.mailbox.author(), text);
    }

    fn append(&mut self, bytes: &[u8]) {
        self.author.get_or_insert_with(|| self.mailbox.author());
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
        let author = self.author.clone();
        self.write_line();
        (self.partial, self.author) = (incomplete, author);
    }

    fn write_line(&mut self) {
        let mut text = String::from_utf8_lossy(&self.partial).into_owned();
        if text.ends_with('\r') {
            text.pop();
        }
        self.partial.clear();
        self.partial.shrink_to(256);
        let author = self.author.take().unwrap_or_else(|| self.mailbox.author());
        let function = self.log.function();
        tracing::debug!(target: "guest", %function, instance = %self.instance, stream = self.stream.as_str(), "{text}");
        self.log.write(self.stream, self.instance, author, text);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.partial.is_empty() {
            self.write_line();
        }
        self.tell_dropped();
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
        self.take(&bytes);
        Ok(())
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
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
