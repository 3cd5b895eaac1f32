//! Streams of HTTP/2: each has a task, which ends when its client leaves what was sent to it unread.
//!
//! Of HTTP/1.1 the kernel tells that a client reads nothing. Of HTTP/2 it does not: the client may read the connection and
//! let one stream wait. So a stream's task looks how long a frame of its reply has been waiting.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::shutdown::Tasks;

/// Who a stream waits for.
#[derive(Clone, Copy)]
enum Waits {
    /// The function, or the rest of the request.
    ForReply,
    /// Its client, since then: a frame of the reply was handed over.
    ForClient(Instant),
}

thread_local! {
    /// The stream whose task runs on this thread, if one does.
    static WAITS: Cell<Option<Waits>> = const { Cell::new(None) };
}

/// The reply of a request was asked for its next frame, and had one or not.
pub(super) fn note_frame(had_one: bool) {
    if WAITS.get().is_some() {
        WAITS.set(Some(if had_one { Waits::ForClient(Instant::now()) } else { Waits::ForReply }));
    }
}

/// Runs streams as tasks of the host.
#[derive(Clone)]
pub(super) struct OnTasks {
    pub(super) tasks: Tasks,
    /// How long a client may leave a frame unread.
    pub(super) write_timeout: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for OnTasks {
    fn execute(&self, stream: F) {
        self.tasks.spawn(Unread { stream, waits: Waits::ForReply, timer: None, write_timeout: self.write_timeout });
    }
}

pin_project! {
    /// A stream that is dropped, which resets it, when its client has not read for too long.
    struct Unread<F> {
        #[pin]
        stream: F,
        waits: Waits,
        timer: Option<Pin<Box<Sleep>>>,
        write_timeout: Duration,
    }
}

impl<F: Future<Output = ()>> Future for Unread<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        WAITS.set(Some(*this.waits));
        let polled = this.stream.poll(cx);
        *this.waits = WAITS.take().unwrap_or(Waits::ForReply);
        if polled.is_ready() {
            return polled;
        }
        let Waits::ForClient(handed) = *this.waits else { return Poll::Pending };
        let until = handed + *this.write_timeout;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}
