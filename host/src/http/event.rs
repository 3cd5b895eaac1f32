//! Reading events: each up to a size, and all of them together up to a sum, so that many large ones at once make callers
//! wait instead of filling the host's memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Failure;

/// How long a caller may take to send an event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that all events under way may have together, beside small ones.
const TOTAL_BYTES_MAX: usize = 512 << 20;
/// Events up to this size are not counted: connections are bounded, and most events are small.
const SMALL_BYTES: usize = 64 << 10;

/// Reads events within the bounds.
pub(super) struct EventReader {
    bytes_max: usize,
    room: Arc<Semaphore>,
}

/// An event, and its share of the bound.
pub(super) struct Event {
    pub(super) bytes: Vec<u8>,
    _share: Option<OwnedSemaphorePermit>,
}

impl EventReader {
    pub(super) fn new(bytes_max: usize) -> EventReader {
        EventReader { bytes_max, room: Arc::new(Semaphore::new(TOTAL_BYTES_MAX / SMALL_BYTES)) }
    }

    pub(super) async fn read(&self, fields: &HeaderMap, body: Body) -> Result<Event, Failure> {
        let announced = fields.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|bytes: usize| bytes > self.bytes_max) {
            return Err(Failure::event_too_large(self.bytes_max));
        }
        let share = self.share(announced.unwrap_or(self.bytes_max)).await?;
        let collected = tokio::time::timeout(EVENT_TIMEOUT, Limited::new(body, self.bytes_max).collect()).await;
        match collected {
            Ok(Ok(collected)) => Ok(Event { bytes: collected.to_bytes().into(), _share: share }),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::event_too_large(self.bytes_max)),
            Ok(Err(_)) => {
                let detail = "the event ended before its announced length";
                Err(Failure::new(StatusCode::BAD_REQUEST, "event-incomplete", detail))
            }
            Err(_elapsed) => {
                let detail = format!("the event did not arrive within {} s", EVENT_TIMEOUT.as_secs());
                Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "event-timed-out", detail))
            }
        }
    }

    async fn share(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        if bytes <= SMALL_BYTES {
            return Ok(None);
        }
        let parts = u32::try_from(bytes.div_ceil(SMALL_BYTES)).unwrap_or(u32::MAX);
        let share = tokio::time::timeout(EVENT_TIMEOUT, self.room.clone().acquire_many_owned(parts)).await;
        match share {
            Ok(Ok(share)) => Ok(Some(share)),
            Ok(Err(_)) | Err(_) => {
                let detail = "too many large events are under way";
                Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "host-full", detail))
            }
        }
    }
}
