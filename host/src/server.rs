//! A running host: the lock of its state directory, its listeners, signals, and the drain.

use std::fs::{DirEntry, File};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::host::Host;
use crate::machine::Machine;
use crate::shutdown::Tasks;
use crate::{admin, data, private};

/// A running host. Dropping it without [`Server::stop`] leaves its tasks to the runtime.
pub struct Server {
    host: Arc<Host>,
    addresses: Addresses,
    drain_timeout: Duration,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether it was started from a terminal.
    has_terminal: bool,
    /// Locked for as long as the host runs.
    _state_lock: File,
}

/// Where a host listens.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Addresses {
    /// Callers.
    pub data: SocketAddr,
    /// Operators.
    pub admin: SocketAddr,
}

/// How a host stopped.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// Instances there were when the drain began.
    pub instances: usize,
    /// Pre-stop hooks that ran in the drain.
    pub pre_stops: u64,
    /// Instances that were still there when the drain's time was over.
    pub unfinished: usize,
}

impl Server {
    /// Opens the state directory and both listeners.
    pub async fn start(mut config: Config) -> anyhow::Result<Server> {
        let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
        let state_lock = lock_state(&config.state_dir)?;
        let machine = Machine::read()?;
        config.fit(machine.open_files_max);
        let tasks = Tasks::default();
        let data_listener = listen(config.data.address, "--data-addr").await?;
        let admin_listener = listen(config.admin.address, "--admin-addr").await?;
        let connections_max = config.data.connections.connections_max;
        let addresses = Addresses { data: data_listener.local_addr()?, admin: admin_listener.local_addr()? };
        let host = Host::open(&config, &machine, vec![addresses.data, addresses.admin], tasks.clone())?;
        host.start();
        tasks.spawn(data::serve(data_listener, host.clone(), config.data));
        tasks.spawn(admin::serve(admin_listener, host.clone(), config.admin, addresses.data));
        tracing::info!(data = %addresses.data, admin = %addresses.admin, connections_max, "listening");
        let drain_timeout = config.drain_timeout;
        Ok(Server {
            host,
            addresses,
            drain_timeout,
            terminate,
            interrupt,
            hangup,
            has_terminal: has_terminal(),
            _state_lock: state_lock,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Ends at SIGTERM, at Ctrl-C, and when the terminal is closed. They are listened for since the host started, so none
    /// is missed.
    pub async fn told_to_stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {}
            }
            // The kernel sends the same signal to the processes of a terminal that is closed.
            if self.has_terminal && !has_terminal() {
                return;
            }
            tracing::info!("SIGHUP: there is nothing to reload");
        }
    }

    /// Drains: no new requests, those accepted are answered, every pre-stop runs. A signal meanwhile cuts it short.
    pub async fn stop(mut self) -> anyhow::Result<Stopped> {
        let instances = self.host.instance_count();
        let before = self.host.pre_stops();
        tracing::info!(instances, timeout_ms = self.drain_timeout.as_millis(), "draining");
        let host = self.host.clone();
        let drained = tokio::select! {
            drained = tokio::time::timeout(self.drain_timeout, host.drain()) => drained.is_ok(),
            () = self.told_to_stop() => {
                tracing::warn!("told to stop twice: not waiting any longer");
                false
            }
        };
        let unfinished = self.host.instance_count();
        if !drained {
            self.host.cut_off().await;
        }
        self.host.close().context("close the ledger")?;
        let pre_stops = self.host.pre_stops() - before;
        Ok(Stopped { instances, pre_stops, unfinished })
    }
}

fn has_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
}

/// What a state directory holds: the beginnings of the names.
const STATE_NAMES: [&str; 5] = ["lock", "catalog.sqlite", "ledger.sqlite", "components", "compiled"];

/// Takes the state directory for this host alone, and closes it to other users of the machine. A folder that holds other
/// files as well keeps its mode; what is ours in it is closed.
fn lock_state(state_dir: &Path) -> anyhow::Result<File> {
    let take = || -> anyhow::Result<File> {
        let entries = std::fs::read_dir(state_dir).into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
        let is_ours = |entry: &DirEntry| {
            let name = entry.file_name();
            STATE_NAMES.iter().any(|ours| name.as_encoded_bytes().starts_with(ours.as_bytes()))
        };
        let (ours, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_ours);
        if others.is_empty()
            && let Err(error) = private::folder(state_dir)
        {
            // The folder may be somebody else's, a mounted volume for instance; what is ours in it is closed anyway.
            anyhow::ensure!(state_dir.is_dir(), error);
            tracing::warn!("other users can enter the state directory {}: {error}", state_dir.display());
        }
        for entry in ours {
            private::close(&entry.path())?;
        }
        let file = private::file(&state_dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                anyhow::bail!("another host uses it; stop that one, or choose another folder with --state-dir")
            }
            Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
        }
    };
    take().with_context(|| format!("open the state directory {}", state_dir.display()))
}

async fn listen(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("listen on {address}; choose another address with {flag}, port 0 asks the system"))
}
