//! `dormouse logs`: what a function and the host wrote about it.

use futures::{StreamExt, pin_mut};

use crate::admin::model::LogLine;
use crate::ids::{FunctionName, RequestId};

use super::client_args::ClientArgs;
use super::output;

/// Show a function's log, and follow it
///
/// A line is what an instance wrote to stdout or stderr, or what the host has to say about it (`host`): crashes,
/// timeouts, hooks that overran. With `--follow` new lines are shown as they come, until Ctrl-C; with `--json` each is
/// then one line of JSON. After the time comes the instance, then the request: `?` where several ran in the instance and
/// the engine cannot tell which of them wrote the line, nothing where it belongs to none.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse logs hello --tail 20\n  dormouse logs hello --follow\n  \
    dormouse logs hello --request 01a22150-572c-778c-9a18-b58cd96bd302")]
pub(super) struct Logs {
    /// The function
    name: FunctionName,
    /// Go on with new lines as they come
    #[arg(long, short)]
    follow: bool,
    /// How many of the newest lines to begin with
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100)]
    tail: u32,
    /// Only lines of this request
    #[arg(long, value_name = "IDENTIFIER")]
    request: Option<RequestId>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Logs {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = self.client.client()?;
        let mut query = vec![("tail", self.tail.to_string())];
        query.extend(self.request.as_ref().map(|request| ("request", request.to_string())));
        if self.follow {
            let lines = client.follow(&self.name, &query).await?;
            pin_mut!(lines);
            while let Some(line) = lines.next().await {
                self.client.show(&line?, shown)?;
            }
            output::note("the host ended the log");
            return Ok(());
        }
        let answer = client.logs(&self.name, &query).await?;
        if answer.value.lines.is_empty() && !self.client.json {
            let whose = self.request.as_ref().map(|request| format!(" for request {request}")).unwrap_or_default();
            output::note(&format!("`{}` has not written anything{whose} since the host started", self.name));
            return Ok(());
        }
        self.client.show(&answer, |lines| lines.lines.iter().map(shown).collect::<Vec<_>>().join("\n"))
    }
}

fn shown(line: &LogLine) -> String {
    let LogLine { time, stream, instance, text, .. } = line;
    let request = match &line.request {
        Some(request) => format!(" {request}"),
        None if line.request_unknown => " ?".to_owned(),
        None => String::new(),
    };
    output::plain(&format!("{time} {instance}{request} {stream:<6} {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_wrote_what() {
        let mut line = LogLine {
            time: "2026-05-01T00:00:00.000Z".to_owned(),
            sequence: 1,
            stream: "stdout".to_owned(),
            function: "hello".to_owned(),
            version: "LATEST".to_owned(),
            instance: "i-1".to_owned(),
            request: None,
            key: None,
            request_unknown: false,
            text: "hi\u{7}".to_owned(),
        };
        assert_eq!(shown(&line), "2026-05-01T00:00:00.000Z i-1 stdout hi\\u{7}");
        line.request_unknown = true;
        assert_eq!(shown(&line), "2026-05-01T00:00:00.000Z i-1 ? stdout hi\\u{7}");
        line.request = Some("r-1".to_owned());
        line.stream = "host".to_owned();
        assert_eq!(shown(&line), "2026-05-01T00:00:00.000Z i-1 r-1 host   hi\\u{7}");
    }
}
