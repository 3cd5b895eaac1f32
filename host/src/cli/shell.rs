//! Runs commands of builds through the shell, and shows what they say meanwhile.

use std::io::IsTerminal;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;

use super::output;
use super::progress::Step;

/// How much of a failed command's output is shown.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;
/// How often the last line of a running command is shown.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a command ended, and the end of what it said.
pub(super) struct Captured {
    pub(super) status: ExitStatus,
    pub(super) output: String,
}

/// Runs a shell command, with its last line as the step's message.
///
/// Both of its streams go to one nameless file: their order stays, no pipe can fill up, and memory stays bounded.
pub(super) async fn run_captured(command: &str, folder: &Path, step: &Step) -> anyhow::Result<Captured> {
    let file = tempfile::tempfile().context("create a file for the output")?;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    // The manifest says where components are; cargo must not put them elsewhere, where an older one may lie.
    shell.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR");
    shell.stdout(file.try_clone()?).stderr(file.try_clone()?);
    if std::io::stderr().is_terminal() {
        shell.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = shell.spawn().context("start the shell")?;
    let status = loop {
        match tokio::time::timeout(LOOK_EVERY, child.wait()).await {
            Ok(status) => break status?,
            Err(_) => {
                if let Some(line) = tail(&file, 1024)?.lines().rfind(|line| !line.trim().is_empty()) {
                    step.doing(output::plain(&anstream::adapter::strip_str(line).to_string()).trim());
                }
            }
        }
    };
    Ok(Captured { status, output: tail(&file, OUTPUT_BYTES_MAX)? })
}

/// The last bytes of a file that somebody else still writes.
fn tail(file: &std::fs::File, bytes_max: u64) -> std::io::Result<String> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(bytes_max);
    let mut bytes = vec![0; usize::try_from(length - start).unwrap_or_default()];
    let read = file.read_at(&mut bytes, start)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

/// Text that stands between single quotes.
pub(super) fn quoted(text: &str) -> String {
    text.replace('\'', r"'\''")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::progress::Progress;

    #[tokio::test]
    async fn output_keeps_its_order_and_its_end() {
        let step = Progress::new().step("test", "run");
        let captured = run_captured("echo one; echo two >&2; echo three", &std::env::temp_dir(), &step).await.unwrap();
        assert!(captured.status.success());
        assert_eq!(captured.output, "one\ntwo\nthree\n");
    }

    #[test]
    fn curl_lines_survive_the_shell() {
        assert_eq!(quoted("it's"), r"it'\''s");
    }
}
