//! `dormouse compile`: the compiler of a host, which starts it for each component; see `catalog/compiler.rs`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::process::exit;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getppid, setrlimit};

use crate::catalog::COMPILE_REFUSED;
use crate::guest::Refusal;
use crate::{guest, machine};

/// How often it looks whether its host is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Compile a component, for a host
#[derive(clap::Args)]
#[command(hide = true)]
pub(super) struct Compile {
    #[arg(long)]
    host_pid: u32,
    #[arg(long)]
    memory_max_mb: u64,
    #[arg(long)]
    cpu_max_s: u64,
}

impl Compile {
    /// Reads a component from standard input and writes machine code to standard output.
    pub(super) fn run(self) -> anyhow::Result<()> {
        machine::give_way();
        // If the kernel must kill one of a control group, it is to be this process and not the host. Refused at worst.
        let _ = fs::write("/proc/self/oom_score_adj", "1000");
        let memory = self.memory_max_mb.saturating_mul(1 << 20);
        let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(Resource::Data, limit(memory)).context("limit its memory")?;
        // Between the two the kernel sends the signal that tells the host why it ended.
        let cpu = Rlimit { current: Some(self.cpu_max_s), maximum: Some(self.cpu_max_s + 1) };
        setrlimit(Resource::Cpu, cpu).context("limit its CPU time")?;
        end_with(self.host_pid);
        let mut component = Vec::new();
        io::stdin().read_to_end(&mut component).context("read the component")?;
        match guest::compile(&component) {
            Ok(code) => Ok(io::stdout().write_all(code.bytes()).context("write the code")?),
            Err(refusal) => {
                // The host puts the words around it.
                let words = match refusal {
                    Refusal::Invalid(words) => words,
                    other => other.to_string(),
                };
                eprint!("{words}");
                exit(COMPILE_REFUSED)
            }
        }
    }
}

/// A host that is killed can stop nobody, so this process stops itself. Whoever is its parent by now may have become that
/// when the host was killed, so the host says who it is.
fn end_with(host: u32) {
    let is_there = move || getppid().is_some_and(|parent| parent.as_raw_nonzero().get().cast_unsigned() == host);
    thread::spawn(move || {
        while is_there() {
            thread::sleep(LOOK_EVERY);
        }
        exit(1)
    });
}
