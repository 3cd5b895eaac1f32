//! A server under test: a process on cores of its own, whose CPU and memory can be read, and which never outlives the
//! benchmark.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{self, Cores};
use crate::{clock, interrupt};

const PATIENCE: Duration = Duration::from_secs(60);

/// Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// What a process occupies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident_kib: f64,
    pub(crate) proportional_kib: f64,
    pub(crate) peak_kib: f64,
    pub(crate) page_tables_kib: f64,
    pub(crate) maps: f64,
}

/// This very program, which can serve as a host and as the bare server.
pub(crate) fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("find this program")
}

/// Runs `program`, below the command `wrapper` if that is not empty.
pub(crate) fn command(wrapper: &[String], program: &Path) -> Command {
    let Some((first, rest)) = wrapper.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

impl Server {
    /// Starts it on the given cores; what it says goes to `log`.
    pub(crate) fn start(mut command: Command, cores: Cores, log: &Path) -> Result<Server> {
        let errors = File::create(log).with_context(|| format!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).env_remove("RUST_BACKTRACE");
        // A child takes over the cores of the thread that starts it, and its threads take over the child's.
        let mut child = machine::on(cores, || command.spawn()).with_context(|| format!("start {command:?}"))?;
        interrupt::started(child.id());
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Server { child, stdout })
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("read a server's output")?;
        if line.is_empty() {
            bail!("the server ended: {:?}", self.child.wait()?);
        }
        Ok(line)
    }

    /// Waits until it takes connections: for servers that do not say so.
    pub(crate) fn listens_at(&mut self, address: SocketAddr) -> Result<()> {
        let began = clock::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended: {status}");
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "the server does not listen at {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn cpu(&self) -> Result<Duration> {
        machine::process_cpu(self.pid())
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.pid());
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let kib = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        let (rollup, status) = (read("smaps_rollup")?, read("status")?);
        Ok(Memory {
            resident_kib: kib(&rollup, "Rss:"),
            proportional_kib: kib(&rollup, "Pss:"),
            peak_kib: kib(&status, "VmHWM:"),
            page_tables_kib: kib(&status, "VmPTE:"),
            maps: read("maps")?.lines().count() as f64,
        })
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).context("a process has a number")?;
        interrupt::ends(self.child.id());
        kill_process(pid, Signal::TERM).context("stop a server")?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        interrupt::ends(self.child.id());
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
