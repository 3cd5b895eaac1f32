//! Compiling components, each in a process of its own: this program again, as `dormouse compile`.
//!
//! A process can be limited, and stopped at any moment with all of its memory. It is stopped when nobody waits for it any
//! more: the upload's connection ended, or the host drains. One large and one small component can be compiled at the same
//! time, so that a small one waits for no large one. A small one that takes long begins anew among the large ones.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use rustix::process::Signal;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::lane::{Lane, Urgency};
use crate::config::CompileBounds;
use crate::guest::Refusal;
use crate::shutdown::Tasks;

/// From this size on a component is large.
const LARGE_BYTES: usize = 1 << 20;
/// A small component that takes longer than this holds up the other small ones no more.
const SMALL_WITHIN: Duration = Duration::from_secs(10);
/// Bytes that are read of the compiler's standard error.
const WORDS_BYTES_MAX: u64 = 64 << 10;
/// The exit code of a compiler that refuses the component; why is on its standard error.
pub const REFUSED: i32 = 3;

/// The exit code of a command line that failed: here, to read the component or to write the code, on a full disk above all.
const FAILED: i32 = 1;

/// Why a component was not compiled or stored.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is none, or does not fit this host.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The host drains, and compiles nothing any more.
    #[error("the host is shutting down")]
    Draining,
    /// The disk, or damage on it.
    #[error(transparent)]
    Storage(#[from] anyhow::Error),
}

/// Compiles components.
pub(super) struct Compiler {
    bounds: CompileBounds,
    small: Lane,
    large: Lane,
    tasks: Tasks,
    #[cfg(test)]
    is_here: bool,
}

impl Compiler {
    pub(super) fn new(bounds: CompileBounds, tasks: Tasks) -> Compiler {
        Compiler {
            bounds,
            small: Lane::default(),
            large: Lane::default(),
            tasks,
            #[cfg(test)]
            is_here: false,
        }
    }

    /// A compiler for unit tests, whose program is not `dormouse`: it compiles in this process.
    #[cfg(test)]
    pub(super) fn here(tasks: Tasks) -> Compiler {
        let bounds = CompileBounds { memory_mb_max: 0, cpu_max: Duration::ZERO, timeout: Duration::from_secs(60) };
        Compiler { is_here: true, ..Compiler::new(bounds, tasks) }
    }

    /// Compiles a component into a new file in `folder`.
    pub(super) async fn compile(
        &self,
        component: Bytes,
        urgency: Urgency,
        folder: &Path,
    ) -> Result<NamedTempFile, CompileError> {
        Refusal::check_kind(&component)?;
        let work = async {
            if component.len() < LARGE_BYTES {
                let _turn = self.small.turn(urgency).await;
                let limit = SMALL_WITHIN.min(self.bounds.timeout);
                match timeout(limit, self.run(component.clone(), folder)).await {
                    Ok(done) => return done,
                    Err(_) if limit == self.bounds.timeout => return Err(self.too_slow()),
                    Err(_) => {}
                }
            }
            let _turn = self.large.turn(urgency).await;
            let done = timeout(self.bounds.timeout, self.run(component.clone(), folder)).await;
            done.unwrap_or_else(|_| Err(self.too_slow()))
        };
        let stopped = async {
            match urgency {
                Urgency::Urgent => self.tasks.closing().await,
                Urgency::Patient => self.tasks.drained().await,
            }
        };
        tokio::select! {
            done = work => done,
            () = stopped => Err(CompileError::Draining),
        }
    }

    fn too_slow(&self) -> CompileError {
        let took = format!("{} ms", self.bounds.timeout.as_millis());
        Refusal::TooCostly { took, setting: "compile-timeout-ms" }.into()
    }

    async fn run(&self, component: Bytes, folder: &Path) -> Result<NamedTempFile, CompileError> {
        let file = NamedTempFile::new_in(folder).context("create a file for compiled code")?;
        #[cfg(test)]
        if self.is_here {
            std::fs::write(file.path(), crate::guest::compile(&component)?.bytes()).context("write the code")?;
            return Ok(file);
        }
        let mut process =
            Process { child: Some(self.start(&file).context("start the compiler")?), tasks: self.tasks.clone() };
        let child = process.child.as_mut().context("it was just started")?;
        let mut stdin = child.stdin.take().context("the compiler's standard input")?;
        let mut stderr = child.stderr.take().context("the compiler's standard error")?.take(WORDS_BYTES_MAX);
        let mut words = Vec::new();
        let feed = async {
            // A compiler that ended early says why itself.
            let _ = stdin.write_all(&component).await;
            drop(stdin);
        };
        let (_, _, status) = tokio::join!(feed, stderr.read_to_end(&mut words), child.wait());
        let status = status.context("wait for the compiler")?;
        process.child = None;
        let words = String::from_utf8_lossy(&words);
        self.judge(status, words.trim()).map(|()| file)
    }

    fn start(&self, file: &NamedTempFile) -> anyhow::Result<Child> {
        // The file that this process runs, even if another was put in its place meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg("compile");
        command.arg(format!("--host-pid={}", std::process::id()));
        command.arg(format!("--memory-max-mb={}", self.bounds.memory_mb_max));
        command.arg(format!("--cpu-max-s={}", self.cpu_seconds()));
        command.stdin(Stdio::piped()).stdout(file.reopen()?).stderr(Stdio::piped());
        // It needs none of it, and secrets may be in it.
        command.env_clear().kill_on_drop(true);
        Ok(command.spawn()?)
    }

    /// The kernel counts whole seconds.
    fn cpu_seconds(&self) -> u64 {
        self.bounds.cpu_max.as_millis().div_ceil(1000) as u64
    }

    fn judge(&self, status: ExitStatus, words: &str) -> Result<(), CompileError> {
        let signal = |signal: Signal| status.signal() == Some(signal.as_raw());
        if status.success() {
            return Ok(());
        }
        if signal(Signal::XCPU) {
            let took = format!("{} s of CPU time", self.cpu_seconds());
            return Err(Refusal::TooCostly { took, setting: "compile-cpu-max-ms" }.into());
        }
        if is_out_of_memory(words) {
            let took = format!("{} MB of memory", self.bounds.memory_mb_max);
            return Err(Refusal::TooCostly { took, setting: "compile-memory-max-mb" }.into());
        }
        if status.code() == Some(REFUSED) {
            return Err(Refusal::Invalid(words.to_owned()).into());
        }
        if status.code() == Some(FAILED) {
            return Err(anyhow::anyhow!("the compiler failed: {words}").into());
        }
        if signal(Signal::KILL) {
            return Err(
                anyhow::anyhow!("the compiler was killed; the machine may have too little memory for it").into()
            );
        }
        tracing::error!(%status, "the compiler crashed: {words}");
        Err(Refusal::Invalid("the compiler crashed on it; the host's log says more".to_owned()).into())
    }
}

/// A compiler that runs. Dropped, it is stopped and waited for, so that nothing of it is left.
struct Process {
    child: Option<Child>,
    tasks: Tasks,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without a runtime the whole host is being dropped; then the child is killed as it is dropped.
        if let Some(mut child) = self.child.take()
            && Handle::try_current().is_ok()
        {
            self.tasks.spawn(async move {
                let _ = child.kill().await; // It fails if it has ended.
            });
        }
    }
}

/// Whether these are the last words of a process that asked for more memory than it may have: Rust's, or the system's.
fn is_out_of_memory(words: &str) -> bool {
    words.contains("memory allocation of") || words.contains("Cannot allocate memory") || words.contains("os error 12")
}
