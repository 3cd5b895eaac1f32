//! A Dormouse host under test: this very program, or an earlier build, in a process of its own, as `dormouse serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::Options;
use crate::client::Client;
use crate::clock;
use crate::machine::Cores;
use crate::server::{self, Server};

/// How long instances may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running host.
pub(crate) struct Host {
    pub(crate) server: Server,
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
    deployer: Client,
    setup: Setup,
}

/// How a host is started; again, on the same state, if it is kept.
#[derive(Clone)]
pub(crate) struct Setup {
    state: Arc<TempDir>,
    log: PathBuf,
    cores: Cores,
    flags: Vec<String>,
    wrapper: Vec<String>,
    program: PathBuf,
}

/// What functions used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) requests: f64,
    pub(crate) hook_calls: f64,
    pub(crate) executed_ms: f64,
    pub(crate) cu: f64,
    pub(crate) duration_cu: f64,
}

impl Setup {
    pub(crate) fn new(cores: Cores, options: &Options) -> Result<Setup> {
        let folder = &options.out;
        let state = Arc::new(tempfile::tempdir_in(folder.join("state")).context("a folder for the host's state")?);
        let log = folder.join("dormouse.log");
        let program = options.host.clone().map_or_else(server::this_program, Ok)?;
        Ok(Setup { state, log, cores, flags: Vec::new(), wrapper: Vec::new(), program })
    }

    pub(crate) fn flag(mut self, flag: String) -> Setup {
        self.flags.push(flag);
        self
    }

    /// The folder of the host's state.
    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    /// Lets another command run the host.
    pub(crate) fn under(mut self, wrapper: Vec<String>) -> Setup {
        self.wrapper = wrapper;
        self
    }

    /// Another build to run: a `dormouse` or a `bench`.
    pub(crate) fn program(mut self, program: &Path) -> Setup {
        program.clone_into(&mut self.program);
        self
    }

    /// Starts the host and waits until it listens.
    pub(crate) fn start(&self) -> Result<Host> {
        let mut command = server::command(&self.wrapper, &self.program);
        command.args(["serve", "--json", "--data-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--state-dir"]);
        command.arg(self.state.path()).args(&self.flags);
        let mut server = Server::start(command, self.cores, &self.log)?;
        let first = server.line().with_context(|| format!("the host's log is {}", self.log.display()))?;
        let addresses: Value = serde_json::from_str(&first)?;
        let address =
            |plane: &str| -> Result<SocketAddr> { Ok(addresses[plane].as_str().context("address")?.parse()?) };
        let (data, admin) = (address("data")?, address("admin")?);
        Ok(Host { server, data, admin, deployer: Client::connect(admin)?, setup: self.clone() })
    }
}

impl Host {
    pub(crate) fn deploy(&mut self, name: &str, component: &[u8], settings: &Value) -> Result<()> {
        let fields = format!("dormouse-settings: {settings}\r\n");
        let reply = self.deployer.send(&format!("PUT /v1/functions/{name}/code"), &fields, component)?;
        let body = String::from_utf8_lossy(&reply.body);
        ensure!(matches!(reply.status, 200 | 201), "deploy {name}: {} {body}", reply.status);
        Ok(())
    }

    /// The bill of one function.
    pub(crate) fn usage(&self, function: &str) -> Result<Usage> {
        let total = self.admin()?.json(&format!("/v1/usage?function={function}"))?["total"].clone();
        let number = |key: &str| total[key].as_f64().with_context(|| format!("the bill has no {key}: {total}"));
        Ok(Usage {
            requests: number("requests")?,
            hook_calls: number("hookCalls")?,
            executed_ms: number("executedMs")?,
            cu: number("cu")?,
            duration_cu: number("durationCu")?,
        })
    }

    /// How many instances are parked, once all are.
    pub(crate) fn settled(&self) -> Result<f64> {
        self.parked_at_least(0.0)
    }

    /// How many instances are parked, once so many are, and none is awake.
    pub(crate) fn parked_at_least(&self, least: f64) -> Result<f64> {
        let began = clock::now();
        loop {
            let (parked, all) = self.parked()?;
            if parked == all && parked >= least {
                return Ok(parked);
            }
            ensure!(began.elapsed() < PATIENCE, "{parked} of {all} instances are parked, and no more");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Instances of all functions, as the metrics have them: those that are parked, and all.
    fn parked(&self) -> Result<(f64, f64)> {
        let reply = self.admin()?.send("GET /metrics", "", b"")?;
        let text = String::from_utf8_lossy(&reply.body);
        let (mut parked, mut all) = (0.0, 0.0);
        for line in text.lines().filter(|line| line.starts_with("dormouse_instances{")) {
            let count: f64 = line.rsplit(' ').next().context("a value")?.parse()?;
            all += count;
            parked += if line.contains("state=\"parked\"") { count } else { 0.0 };
        }
        Ok((parked, all))
    }

    /// The folder of its state.
    pub(crate) fn state(&self) -> &Path {
        self.setup.state()
    }

    /// A new connection to the admin plane: one that idled for long may have been closed.
    pub(crate) fn admin(&self) -> Result<Client> {
        Client::connect(self.admin)
    }

    pub(crate) fn caller(&self) -> Result<Client> {
        Client::connect(self.data)
    }

    /// Stops in order and returns how to start it again on its state.
    pub(crate) fn stop(self) -> Result<Setup> {
        let Host { server, setup, deployer, .. } = self;
        drop(deployer);
        server.stop()?;
        Ok(setup)
    }
}

impl std::ops::Sub for Usage {
    type Output = Usage;

    fn sub(self, before: Usage) -> Usage {
        Usage {
            requests: self.requests - before.requests,
            hook_calls: self.hook_calls - before.hook_calls,
            executed_ms: self.executed_ms - before.executed_ms,
            cu: self.cu - before.cu,
            duration_cu: self.duration_cu - before.duration_cu,
        }
    }
}
