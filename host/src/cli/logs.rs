//! `dormouse logs`: what a function and the host wrote about it.

use futures::{StreamExt, pin_mut};

use crate::admin::model::LogLine;
use crate::clock;
use crate::ids::{FunctionName, RequestId};

use super::client_args::ClientArgs;
use super::output;
use super::units::Moment;

/// Show a function's log, and follow it
///
/// A line is what an instance wrote to stdout or stderr, or what the host has to say about it (`host`): crashes,
/// timeouts, hooks that overran. Lines are kept on disk, a week by default, also when the host starts anew. With `--follow` new
/// lines are shown as they come, until Ctrl-C. After the time (UTC) comes the instance, then the request: `?` where several ran in the instance and
/// the engine cannot tell which of them wrote the line, nothing where it belongs to none. Long identifiers are cut to their ends;
/// `--json` has them whole, with `--follow` a line of JSON each.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse logs hello --tail 20\n  dormouse logs hello --follow\n  \
    dormouse logs hello --from 2d --to 1d --text refused\n  \
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
    /// Only lines with this text in them, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Only lines of this stream
    #[arg(long, value_name = "STREAM", value_parser = ["stdout", "stderr", "host"])]
    stream: Option<String>,
    /// Only lines from this time on: RFC 3339, a day, or how long ago (`1h`, `7d`)
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Only lines before this time, written the same way
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    to: Option<Moment>,
    /// Only lines before the one with this number, to go on where a list began
    #[arg(long, value_name = "NUMBER", conflicts_with = "follow")]
    before: Option<u64>,
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
        query.extend(self.text.clone().map(|text| ("text", text)));
        query.extend(self.stream.clone().map(|stream| ("stream", stream)));
        query.extend(self.from.map(|from| ("from", from.rfc3339())));
        query.extend(self.to.map(|to| ("to", to.rfc3339())));
        query.extend(self.before.map(|before| ("before", before.to_string())));
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
            let chosen = query.len() > 1;
            let what = if chosen { "no such lines in its log" } else { "written nothing that is still kept" };
            output::note(&format!("`{}` has {what}", self.name));
        } else {
            self.client.show(&answer, |lines| lines.lines.iter().map(shown).collect::<Vec<_>>().join("\n"))?;
        }
        output::note_older(answer.value.next.filter(|_| !self.client.json));
        Ok(())
    }
}

fn shown(line: &LogLine) -> String {
    shown_on(line, &humantime::format_rfc3339_seconds(clock::date()).to_string()[..DAY_BYTES])
}

/// A line as people read it on a day: the time of that day, or the date with it, and the ends of identifiers, which tell them apart.
fn shown_on(line: &LogLine, today: &str) -> String {
    let LogLine { time, stream, instance, text, .. } = line;
    let time = match time.strip_prefix(today) {
        Some(time) => time.trim_start_matches('T').trim_end_matches('Z'),
        None => time.split('.').next().unwrap_or_default(),
    };
    let request = match &line.request {
        Some(request) => format!(" {}", end_of(request)),
        None if line.request_unknown => " ?".to_owned(),
        None => String::new(),
    };
    output::plain(&format!("{time} {}{request} {stream:<6} {text}", end_of(instance)))
}

/// `YYYY-MM-DD`.
const DAY_BYTES: usize = 10;
/// Letters of an identifier that are shown.
const END: usize = 8;

fn end_of(identifier: &str) -> String {
    // What a host sends is not checked, and only ASCII can be cut anywhere.
    match identifier.len().checked_sub(END).filter(|cut| *cut > END && identifier.is_ascii()) {
        Some(cut) => format!("…{}", &identifier[cut..]),
        None => identifier.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A line of `hello` that belongs to no request.
    pub(crate) fn line(text: &str) -> LogLine {
        LogLine {
            time: "2026-05-01T00:00:00.000Z".to_owned(),
            sequence: 1,
            stream: "stdout".to_owned(),
            function: "hello".to_owned(),
            version: "LATEST".to_owned(),
            instance: "i-1".to_owned(),
            request: None,
            key: None,
            request_unknown: false,
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_line_says_who_wrote_what() {
        let mut line = line("hi\u{7}");
        let shown = |line: &LogLine| shown_on(line, "2026-05-01");
        assert_eq!(shown(&line), "00:00:00.000 i-1 stdout hi\\u{7}");
        assert_eq!(shown_on(&line, "2026-05-02"), "2026-05-01T00:00:00 i-1 stdout hi\\u{7}");
        line.request_unknown = true;
        assert_eq!(shown(&line), "00:00:00.000 i-1 ? stdout hi\\u{7}");
        line.request = Some("r-1".to_owned());
        line.stream = "host".to_owned();
        assert_eq!(shown(&line), "00:00:00.000 i-1 r-1 host   hi\\u{7}");
        line.request = Some("01a22150-572c-778c-9a18-b58cd96bd302".to_owned());
        assert_eq!(shown(&line), "00:00:00.000 i-1 …d96bd302 host   hi\\u{7}");
    }
}
