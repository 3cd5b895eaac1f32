//! A running host: the lock of its state directory, its listeners, signals, and the drain.

use std::fs::{DirEntry, File};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::access::Auth;
use crate::config::{AdminConfig, Config, TlsConfig};
use crate::fc::{self, Fc};
use crate::host::Host;
use crate::machine::Machine;
use crate::queue::Queue;
use crate::room::Room;
use crate::shutdown::Tasks;
use crate::trigger::Triggers;
use crate::web::self_signed;
use crate::web::tls::{Tls, TlsFiles};
use crate::{admin, data, private};

/// How often the files of TLS are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(10);

/// The shortest admin token that cannot be guessed.
const TOKEN_BYTES_MIN: usize = 20;
/// How many functions the log names that are open to everybody.
const OPEN_NAMED_MAX: usize = 20;

/// A running host. Dropping it without [`Server::stop`] leaves its tasks to the runtime.
pub struct Server {
    host: Arc<Host>,
    queue: Arc<Queue>,
    addresses: Addresses,
    has_tls: bool,
    /// Lets the files of TLS be read again.
    reload: mpsc::Sender<()>,
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
        let tls = PlanesTls::load(&config, addresses)?;
        let host = Host::open(&config, &machine, vec![addresses.data, addresses.admin], tasks.clone())?;
        check_operators(&config, &host)?;
        warn_of_short_token(&config);
        let queue = Queue::open(host.clone(), &config.state_dir, &config.queue)?;
        host.start();
        queue.start();
        let reach =
            fc::Reach { admin: addresses.admin.port(), data: addresses.data.port(), has_tls: tls.data.is_some() };
        let uploads = Arc::new(Room::new(config.admin.uploads_memory_mb_max));
        let fc = Fc::open(queue.clone(), &config.state_dir, uploads, (config.fc, reach))?;
        let triggers = Triggers::new(queue.clone());
        triggers.start();
        tasks.spawn(data::serve(data_listener, tls.data.clone(), (queue.clone(), fc.clone()), config.data));
        let plane = admin::serve(admin_listener, tls.admin.clone(), (triggers, fc), config.admin, addresses.data);
        tasks.spawn(plane);
        let has_tls = tls.data.is_some();
        let reload = tls.follow_files()?;
        tracing::info!(data = %addresses.data, admin = %addresses.admin, has_tls, connections_max, "listening");
        if !addresses.data.ip().is_loopback() {
            warn_of_strangers(&host, has_tls);
        }
        let drain_timeout = config.drain_timeout;
        Ok(Server {
            host,
            queue,
            addresses,
            has_tls,
            reload,
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

    /// Whether its planes speak TLS.
    pub fn has_tls(&self) -> bool {
        self.has_tls
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
            if self.reload.send(()).is_err() {
                tracing::info!("SIGHUP: there is nothing to reload");
            }
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
        self.queue.close();
        self.host.close().context("close the ledger")?;
        let pre_stops = self.host.pre_stops() - before;
        Ok(Stopped { instances, pre_stops, unfinished })
    }
}

/// TLS of both planes: the same certificates; the admin plane may ask its clients for theirs.
struct PlanesTls {
    data: Option<Tls>,
    admin: Option<Tls>,
}

impl PlanesTls {
    fn load(config: &Config, addresses: Addresses) -> anyhow::Result<PlanesTls> {
        let pairs = match &config.tls {
            None => return Ok(PlanesTls { data: None, admin: None }),
            Some(TlsConfig::Files(pairs)) => pairs.clone(),
            Some(TlsConfig::SelfSigned) => {
                vec![self_signed::certificate(&config.state_dir, &[addresses.data.ip(), addresses.admin.ip()])?]
            }
        };
        let load = |client_authorities| Tls::load(TlsFiles { pairs: pairs.clone(), client_authorities }).map(Some);
        let tls = || anyhow::Ok(PlanesTls { data: load(None)?, admin: load(config.admin.client_ca.clone())? });
        tls().context("set up TLS")
    }

    /// Reads the files again when they have changed, and whenever something comes from the channel, until that is closed. On
    /// a thread of its own, because a disk may take any time.
    fn follow_files(self) -> anyhow::Result<mpsc::Sender<()>> {
        let (reload, orders) = mpsc::channel();
        let has_files = self.data.is_some();
        let follow = move || {
            let mut failed = false;
            loop {
                let (ordered, why) = match orders.recv_timeout(FILES_INTERVAL) {
                    Ok(()) => (true, "SIGHUP"),
                    Err(RecvTimeoutError::Timeout) => (false, "the files of TLS have changed"),
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                match self.reload(ordered) {
                    Ok(reloaded) => {
                        if reloaded {
                            tracing::info!("{why}: new connections get the certificates that are there now");
                        }
                        failed = false;
                    }
                    // Without an order once: half a change is often seen, and may stay.
                    Err(error) => {
                        if ordered || !std::mem::replace(&mut failed, true) {
                            tracing::warn!("{why}: they are wrong, and what was there before stays: {error:#}");
                        }
                    }
                }
            }
        };
        if has_files {
            thread::Builder::new().name("certificates".to_owned()).spawn(follow).context("start a thread")?;
        }
        Ok(reload)
    }

    /// Reads the files again, if they have changed or are to be read anyway. Says whether it did.
    fn reload(&self, anyway: bool) -> anyhow::Result<bool> {
        let mut reloaded = false;
        for tls in [&self.data, &self.admin].into_iter().flatten() {
            if anyway {
                tls.reload()?;
                reloaded = true;
            } else {
                reloaded |= tls.reload_if_changed()?;
            }
        }
        Ok(reloaded)
    }
}

/// An admin plane that other machines reach must have somebody who may use it.
fn check_operators(config: &Config, host: &Host) -> anyhow::Result<()> {
    let AdminConfig { address, client_ca, .. } = &config.admin;
    anyhow::ensure!(
        address.ip().is_loopback() || client_ca.is_some() || host.access().has_manager(),
        "`admin-addr` {address} can be reached from other machines, and nobody could use it: set `admin-token`, or make a key \
         with `dormouse keys create --functions '*' --allow manage` while it is on loopback"
    );
    Ok(())
}

/// A token that people make up is guessed by machines.
fn warn_of_short_token(config: &Config) {
    let is_reached = [config.data.address, config.admin.address].iter().any(|address| !address.ip().is_loopback());
    if is_reached && config.access.admin_token.as_ref().is_some_and(|token| token.len() < TOKEN_BYTES_MIN) {
        tracing::warn!(
            "the admin token is shorter than {TOKEN_BYTES_MIN} characters, and other machines can guess it; \
             `openssl rand -hex 20` makes a good one"
        );
    }
}

/// Says what callers on other machines can do without a key, and what others can read of it.
fn warn_of_strangers(host: &Host, has_tls: bool) {
    if !has_tls {
        tracing::warn!(
            "callers on other machines reach the data plane without TLS; `tls-cert` and `tls-key` set it up"
        );
    }
    let functions = host.functions();
    let open: Vec<&str> = functions
        .iter()
        .filter(|function| host.auth_of(Some(function)) == Auth::None)
        .map(|function| function.name.as_str())
        .collect();
    if open.is_empty() {
        tracing::info!("every function asks its callers for an access key");
    } else {
        let named = open.iter().take(OPEN_NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = if open.len() > OPEN_NAMED_MAX { " and more" } else { "" };
        tracing::warn!(
            "callers on other machines need no key for {} of {} functions, because `auth` is `none`: {named}{more}",
            open.len(),
            functions.len()
        );
    }
}

fn has_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
}

/// What a state directory holds: the beginnings of the names.
const STATE_NAMES: [&str; 12] = [
    "lock",
    "catalog.sqlite",
    "ledger.sqlite",
    "access.sqlite",
    "queue.sqlite",
    "fc.sqlite",
    "logs.sqlite",
    "fc-uploads",
    "secret.key",
    "components",
    "compiled",
    "tls",
];

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
            private::close(&entry.path()).with_context(|| format!("close {} to others", entry.path().display()))?;
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
