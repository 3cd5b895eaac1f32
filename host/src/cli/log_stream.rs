//! A function's log as it grows: server-sent events from the host at an address.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, future};
use reqwest::Response;
use sse_stream::{Sse, SseByteStream};

use super::answer::Answer;
use super::client_error::{ClientError, root_cause};
use crate::admin::model::LogLine;

/// The longest event that is still a log line.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// The log lines of a stream of server-sent events. It ends with the first error.
pub(super) fn lines(response: Response, address: String) -> impl Stream<Item = Result<Answer<LogLine>, ClientError>> {
    SseByteStream::new(bounded(response.bytes_stream())).filter_map(move |event| {
        future::ready(match event {
            Ok(event) => log_line(event).map(Ok),
            Err(error) => Some(Err(ClientError::Broken { address: address.clone(), cause: root_cause(&error) })),
        })
    })
}

/// The same bytes, up to the first event that is too long: the decoder keeps an event until its end, which is an empty line.
fn bounded<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    chunks: impl Stream<Item = Result<Bytes, E>>,
) -> impl Stream<Item = io::Result<Bytes>> {
    let mut event_bytes = 0;
    chunks.map(move |chunk| {
        let chunk = chunk.map_err(io::Error::other)?;
        event_bytes = match chunk.windows(2).rposition(|pair| pair == b"\n\n") {
            Some(end) => chunk.len() - end,
            None => event_bytes + chunk.len(),
        };
        if event_bytes > EVENT_BYTES_MAX { Err(io::Error::other("an event is too long")) } else { Ok(chunk) }
    })
}

/// The log line in an event; keep-alives hold none.
fn log_line(event: Sse) -> Option<Answer<LogLine>> {
    let json = event.data?;
    let value = serde_json::from_str(&json).ok()?;
    Some(Answer { json, value })
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn events_are_cut_into_log_lines() {
        let chunks = [
            ": keep-alive\r\n\r\nevent: line\ndata: {\"time\":\"t\",\"sequence\":1,\"stream\":\"stdout\",",
            "\"function\":\"f\",\"version\":\"1\",\"instance\":\"i-1\",\"text\":\"hi\"}\n\ndata: rest",
        ];
        let chunks = stream::iter(chunks).map(|chunk| Ok::<_, io::Error>(Bytes::from(chunk)));
        let events: Vec<_> = SseByteStream::new(bounded(chunks)).collect().await;
        let lines: Vec<_> = events.into_iter().filter_map(|event| log_line(event.unwrap())).collect();
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(line.value.text, "hi");
    }

    #[tokio::test]
    async fn an_event_that_never_ends_is_refused() {
        let chunks = stream::repeat(Bytes::from(vec![b'x'; EVENT_BYTES_MAX / 2])).map(Ok::<_, io::Error>);
        let events: Vec<_> = SseByteStream::new(bounded(chunks)).collect().await;
        let [Err(error)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(root_cause(error), "an event is too long");
    }
}
