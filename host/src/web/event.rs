//! Reading events: each up to a size, and all of them together up to a sum, so that many large ones at once make callers
//! wait instead of filling the host's memory. An event counts until its call has ended.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::linger::Lingering;
use super::problem::{Code, Failure};
use crate::room::{Room, Share};
use crate::shutdown::Tasks;

/// How long a caller may take to send an event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that are set aside for an event before it comes.
const EXPECTED_BYTES_MAX: usize = 64 << 10;

/// Reads events within the bounds.
pub struct EventReader {
    bytes_max: usize,
}

impl EventReader {
    /// Reads events of up to so many bytes.
    pub fn new(bytes_max: usize) -> EventReader {
        EventReader { bytes_max }
    }

    /// An event, with its share of the memory for events.
    pub async fn read(
        &self,
        room: &Room,
        tasks: &Tasks,
        fields: &HeaderMap,
        body: Lingering,
    ) -> Result<(Vec<u8>, Share), Failure> {
        let announced = fields.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|bytes: usize| bytes > self.bytes_max) {
            return Err(self.too_large());
        }
        let share = tokio::select! {
            biased;
            share = room.wait(announced.unwrap_or(self.bytes_max), EVENT_TIMEOUT) => share,
            () = tasks.cut_off() => return Err(cut_off()),
        };
        let share = share.ok_or_else(|| Failure::new(Code::HostFull, "too many large events wait or are handled"))?;
        match at_once_or_within(EVENT_TIMEOUT, tasks.cut_off(), self.collect(announced, body)).await {
            Some(bytes) => Ok((bytes?, share)),
            None if tasks.is_cut_off() => Err(cut_off()),
            None => {
                let detail = format!("the event did not arrive within {} s", EVENT_TIMEOUT.as_secs());
                Err(Failure::new(Code::EventTimedOut, detail))
            }
        }
    }

    async fn collect(&self, announced: Option<usize>, mut body: Lingering) -> Result<Vec<u8>, Failure> {
        // What is announced may never come, so room for a large event is made as it does.
        let mut bytes = Vec::with_capacity(announced.unwrap_or_default().min(EXPECTED_BYTES_MAX));
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                let detail = "the event ended before its announced length";
                return Err(Failure::new(Code::EventIncomplete, detail));
            };
            let Some(data) = frame.data_ref() else { continue };
            if data.len() > self.bytes_max - bytes.len() {
                return Err(self.too_large());
            }
            bytes.extend_from_slice(data);
        }
        Ok(bytes)
    }

    fn too_large(&self) -> Failure {
        let detail = format!("the event is larger than {} bytes, the most this host takes", self.bytes_max);
        Failure::new(Code::EventTooLarge, detail)
    }
}

fn cut_off() -> Failure {
    Failure::new(Code::HostDraining, "the host stopped before the event was there")
}

/// `work`, unless it takes longer than `limit` or `cut_off` ends before. The timer starts at the second look that finds
/// it unfinished: what came with the request's head is there at the second look, and most events are, so that few need a
/// timer.
async fn at_once_or_within<T>(
    limit: Duration,
    cut_off: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let mut looked = false;
    let early = poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if looked => Poll::Ready(None),
        Poll::Pending => {
            looked = true;
            cx.waker().wake_by_ref(); // Nothing else promises a second look.
            Poll::Pending
        }
    });
    match early.await {
        Some(done) => Some(done),
        None => tokio::select! {
            done = timeout(limit, work) => done.ok(),
            () = cut_off => None,
        },
    }
}
