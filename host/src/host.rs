//! The host: both planes on the parts behind them, from start to drain.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::parts::Parts;
use crate::shutdown::Tasks;
use crate::{control, http};

/// A running host. Dropping it without [`Host::stop`] leaves its tasks to the runtime.
pub struct Host {
    parts: Arc<Parts>,
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

impl Host {
    /// Opens the state directory and both listeners.
    pub async fn start(config: Config) -> anyhow::Result<Host> {
        let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let state_lock = lock_state(&config.state_dir)?;
        let tasks = Tasks::default();
        let parts = Arc::new(Parts::open(&config, tasks.clone())?);
        let data = listen(config.data.address, "--data-addr").await?;
        let admin = listen(config.admin.address, "--admin-addr").await?;
        let addresses = Addresses { data: data.local_addr()?, admin: admin.local_addr()? };
        parts.start_minimum().await;
        tasks.spawn(http::serve(data, parts.clone(), config.data));
        tasks.spawn(control::serve(admin, parts.clone(), config.admin));
        tracing::info!(data = %addresses.data, admin = %addresses.admin, "listening");
        let drain_timeout = config.drain_timeout;
        Ok(Host { parts, addresses, drain_timeout, terminate, interrupt, _state_lock: state_lock })
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
        let instances = self.parts.pools.room().instances();
        let before = self.parts.pre_stops();
        tracing::info!(instances, timeout_ms = self.drain_timeout.as_millis(), "draining");
        let parts = self.parts.clone();
        tokio::select! {
            _ = tokio::time::timeout(self.drain_timeout, parts.drain()) => {}
            () = self.told_to_stop() => tracing::warn!("told to stop twice: not waiting any longer"),
        }
        let unfinished = self.parts.pools.room().instances();
        self.parts.ledger.close().context("close the ledger")?;
        let pre_stops = self.parts.pre_stops() - before;
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
