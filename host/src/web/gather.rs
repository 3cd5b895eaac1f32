//! Writes of HTTP/2, gathered: the streams of a connection end their replies one after another, and a write for each takes as
//! much of the CPU as a small function does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

/// A connection that writes once everybody else who is ready has run, so that what they reply leaves in the same write.
pub(super) struct Gathered<I> {
    io: I,
    /// Whether it has let the others run since its last write.
    waited: bool,
}

impl<I> Gathered<I> {
    pub(super) fn new(io: I) -> Gathered<I> {
        Gathered { io, waited: false }
    }

    /// Lets the others run, once before each write: a task that wakes itself is the last in its queue.
    fn let_others_run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<I: Read + Unpin> Read for Gathered<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: Write + Unpin> Write for Gathered<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.let_others_run(cx));
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes));
        self.waited = false;
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.let_others_run(cx));
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, parts));
        self.waited = false;
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
