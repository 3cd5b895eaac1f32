//! A running host: the lock of its state directory, its listeners, signals, and the drain.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::host::Host;
use crate::shutdown::Tasks;
use crate::{admin, data};

/// A running host. Dropping it without [`Server::stop`] leaves its tasks to the runtime.
pub struct Server {
    host: Arc<Host>,
    addresses: Addresses,
    drain_timeout: Duration,
    terminate: Signal,
    interrupt: Signal,
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
    pub async fn start(config: Config) -> anyhow::Result<Server> {
        let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let state_lock = lock_state(&config.state_dir)?;
        let tasks = Tasks::default();
        let host = Host::open(&config, tasks.clone())?;
        let data_listener = listen(config.data.address, "--data-addr").await?;
        let admin_listener = listen(config.admin.address, "--admin-addr").await?;
        let addresses = Addresses { data: data_listener.local_addr()?, admin: admin_listener.local_addr()? };
        host.start();
        tasks.spawn(data::serve(data_listener, host.clone(), config.data));
        tasks.spawn(admin::serve(admin_listener, host.clone(), config.admin, addresses.data));
        tracing::info!(data = %addresses.data, admin = %addresses.admin, "listening");
        let drain_timeout = config.drain_timeout;
        Ok(Server { host, addresses, drain_timeout, terminate, interrupt, _state_lock: state_lock })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Ends at SIGTERM or Ctrl-C. They are listened for since the host started, so none is missed.
    pub async fn told_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Drains: no new requests, those accepted are answered, every pre-stop runs. A signal meanwhile cuts it short.
    pub async fn stop(mut self) -> anyhow::Result<Stopped> {
        let instances = self.host.instance_count();
        let before = self.host.pre_stops();
        tracing::info!(instances, timeout_ms = self.drain_timeout.as_millis(), "draining");
        let host = self.host.clone();
        tokio::select! {
            _ = tokio::time::timeout(self.drain_timeout, host.drain()) => {}
            () = self.told_to_stop() => tracing::warn!("told to stop twice: not waiting any longer"),
        }
        let unfinished = self.host.instance_count();
        self.host.close().context("close the ledger")?;
        let pre_stops = self.host.pre_stops() - before;
        Ok(Stopped { instances, pre_stops, unfinished })
    }
}

/// Takes the state directory for this host alone.
fn lock_state(state_dir: &Path) -> anyhow::Result<File> {
    let take = || -> anyhow::Result<File> {
        std::fs::create_dir_all(state_dir)?;
        let file = File::options().create(true).append(true).open(state_dir.join("lock"))?;
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
