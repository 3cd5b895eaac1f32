//! `dormouse invoke`: calls a function through the data plane.

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;
use tokio::time::Instant;

use crate::ids::{FunctionName, RequestId};

use super::client::Reply;
use super::client_args::ClientArgs;
use super::{output, units};

/// Call a function and print its reply
///
/// The event goes to the function byte for byte, and the reply's bytes go to stdout as they are. If the function fails,
/// its error goes to stderr and the exit code is 1. Without an event the function gets an empty one. With `--json` a
/// refusal is printed to stdout as the host's problem document.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse invoke hello '{\"name\": \"World\"}'\n  \
    dormouse invoke hello --file event.json --verbose\n  \
    dormouse invoke hello --async --id order-4711 '{\"name\": \"World\"}'\n  \
    cat photo.jpg | dormouse invoke resize - > small.jpg")]
pub(super) struct Invoke {
    /// The function
    name: FunctionName,
    /// The event; `-` reads it from stdin
    event: Option<String>,
    /// Read the event from a file
    #[arg(long, short, value_name = "PATH", conflicts_with = "event")]
    file: Option<PathBuf>,
    /// The version or alias to call instead of `LATEST`
    #[arg(long, value_name = "VERSION")]
    qualifier: Option<String>,
    /// Do not wait for the function: the event is kept until it has run, and the invocation's identifier is printed
    #[arg(long = "async", conflicts_with = "verbose")]
    asynchronous: bool,
    /// With `--async`: the identifier to give the invocation; one that the function has already is not run again
    #[arg(long, value_name = "ID", requires = "asynchronous")]
    id: Option<RequestId>,
    /// Say on stderr which request it was, how the instance started, and how long each part took
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Invoke {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let event = self.event()?;
        let client = self.client.client()?;
        if self.asynchronous {
            let id = self.id.as_ref().map(RequestId::as_str);
            let answer = client.invoke_async(&self.name, self.qualifier.as_deref(), id, event).await?;
            if answer.value.known {
                output::note("the function has an invocation of this identifier already; nothing runs twice");
            }
            return self.client.show(&answer, |receipt| receipt.invocation_id.clone());
        }
        let started = Instant::now();
        let reply = client.invoke(&self.name, self.qualifier.as_deref(), event).await?;
        if self.verbose {
            output::note(&told(&reply, &units::duration(started.elapsed())));
        }
        let mut stdout = io::stdout().lock();
        if stdout.is_terminal() {
            stdout.write_all(on_terminal(&reply.body).as_bytes())?;
        } else {
            stdout.write_all(&reply.body)?;
        }
        Ok(stdout.flush()?)
    }

    fn event(&self) -> anyhow::Result<Bytes> {
        if let Some(path) = &self.file {
            let event = std::fs::read(path).with_context(|| format!("read event {}", path.display()))?;
            return Ok(event.into());
        }
        match self.event.as_deref() {
            None => Ok(Bytes::new()),
            Some("-") => {
                let mut event = Vec::new();
                io::stdin().lock().read_to_end(&mut event).context("read event from stdin")?;
                Ok(event.into())
            }
            Some(event) => Ok(Bytes::copy_from_slice(event.as_bytes())),
        }
    }
}

/// A reply as people see it: it is not to steer their terminal, and the shell's prompt begins a line.
fn on_terminal(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    text.lines().map(|line| output::plain(line) + "\n").collect()
}

/// What the reply's headers say, in one line.
fn told(reply: &Reply, in_all: &str) -> String {
    let header = |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("?");
    let timings = timings(header("server-timing"));
    let (request, start) = (header("dormouse-request-id"), header("dormouse-start"));
    format!("request {request}, {start} instance, {timings}{in_all} in all, {}", units::bytes(reply.body.len() as u64))
}

/// `queue;dur=0.1, exec;dur=2` as `queue 100 µs, exec 2 ms, `.
fn timings(header: &str) -> String {
    let metric = |metric: &str| {
        let (name, parameters) = metric.trim().split_once(';')?;
        let ms = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("dur="))?;
        Some(format!("{name} {}, ", units::duration_ms(ms.parse().ok()?)))
    };
    header.split(',').filter_map(metric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_does_not_steer_a_terminal() {
        for (reply, shown) in [
            (&b"one\n\ntwo"[..], "one\n\ntwo\n"),
            (b"", ""),
            (b"a\tb\r\n", "a\tb\n"),
            (b"\x1b[31mred \xe2\x80\xae", "\\u{1b}[31mred \\u{202e}\n"),
            (b"\xff", "\u{fffd}\n"),
        ] {
            assert_eq!(on_terminal(reply), shown);
        }
    }

    #[test]
    fn server_timings_are_read() {
        assert_eq!(timings("queue;dur=0.1, exec;desc=x;dur=2"), "queue 100 µs, exec 2 ms, ");
        assert_eq!(timings("?"), "");
        assert_eq!(timings("cache, db;dur=x"), "");
    }
}
