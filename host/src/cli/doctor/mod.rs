//! `dormouse doctor`: is this machine ready, and what to do if not.
//!
//! Each check is a function that looks and returns findings; nothing here changes anything.

mod network;
mod storage;
mod system;
mod toolchain;

use std::path::PathBuf;

use anyhow::bail;
use serde::Serialize;

use super::client_args::ClientArgs;
use super::output;

/// Check whether this machine is ready, and say what to do if not
///
/// Looks at the Rust toolchain, the limits of the kernel and of this process, memory, the ports, a host that may be
/// running, and the state directory. Each line is `ok`, `warn` or `fail`; a remedy stands below. The exit code is 1
/// if anything fails.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dormouse doctor")]
pub(super) struct Doctor {
    /// The state directory a host would use
    #[arg(long, env = "DORMOUSE_STATE_DIR", value_name = "DIR", default_value = ".dormouse")]
    state_dir: PathBuf,
    /// Makes wasmtime collect the host's own stack at each error
    #[arg(long, env = "RUST_BACKTRACE", hide = true)]
    rust_backtrace: Option<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Finding {
    level: Level,
    /// What was looked at.
    subject: &'static str,
    /// What was seen, and what it means.
    text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, text: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, subject, text: text.into(), remedy: None }
    }

    fn warn(subject: &'static str, text: impl Into<String>) -> Finding {
        Finding { level: Level::Warn, subject, text: text.into(), remedy: None }
    }

    fn fail(subject: &'static str, text: impl Into<String>) -> Finding {
        Finding { level: Level::Fail, subject, text: text.into(), remedy: None }
    }

    fn remedy(self, remedy: impl Into<String>) -> Finding {
        Finding { remedy: Some(remedy.into()), ..self }
    }
}

impl Doctor {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut findings = toolchain::check().await;
        findings.extend(system::check(self.rust_backtrace.as_deref()));
        findings.extend(network::check(&self.client).await?);
        findings.push(storage::check(&self.state_dir));
        if self.client.json {
            output::print(&serde_json::to_string(&serde_json::json!({ "findings": findings }))?)?;
        } else {
            output::print(&findings.iter().map(shown).collect::<Vec<_>>().join("\n"))?;
        }
        match findings.iter().filter(|finding| finding.level == Level::Fail).count() {
            0 => Ok(()),
            failed => bail!("{} failed", output::several(failed as u64, "check")),
        }
    }
}

fn shown(finding: &Finding) -> String {
    let Finding { level, subject, text, remedy } = finding;
    let level = match level {
        Level::Ok => output::green("ok  "),
        Level::Warn => output::yellow("warn"),
        Level::Fail => output::red("fail"),
    };
    let remedy = remedy.as_ref().map(|remedy| format!("\n{:6}{:18}-> {remedy}", "", "")).unwrap_or_default();
    format!("{level}  {subject:<18}{text}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_remedy_another() {
        let finding = Finding::warn("open files", "1024").remedy("ulimit -n 65536");
        let text = anstream::adapter::strip_str(&shown(&finding)).to_string();
        assert_eq!(text, "warn  open files        1024\n                        -> ulimit -n 65536");
    }
}
