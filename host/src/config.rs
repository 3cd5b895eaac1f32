//! The host's settings: raw ones from flags, the environment and a file, made into checked ones once.
//!
//! A flag wins over its twin in the environment, that over the file, and that over the default. Every fault is
//! reported together. No other module reads settings from anywhere.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use crate::meter::Basis;

/// The largest event that a host may be told to take.
const EVENT_BYTES_LIMIT: usize = 32 << 20;

const DAY_MS: u64 = 86_400_000;
/// Connections to the admin plane.
const ADMIN_CONNECTIONS_MAX: usize = 1000;
/// Files that the host itself has open: databases, listeners, compiled code.
const OWN_FILES: u64 = 32;

/// Settings of `dormouse serve` and `dormouse up`. Each has a twin in the environment and, in kebab-case, in the file.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServeArgs {
    /// Where functions, compiled code and billing data are stored [default: ./.dormouse]
    #[arg(long, env = "DORMOUSE_STATE_DIR", value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
    /// Where callers reach functions; port 0 asks the system for one [default: 127.0.0.1:8080]
    #[arg(long, env = "DORMOUSE_DATA_ADDR", value_name = "ADDRESS")]
    pub data_addr: Option<String>,
    /// Where operators reach the host; anything but loopback needs --admin-token [default: 127.0.0.1:8081]
    #[arg(long, env = "DORMOUSE_ADMIN_ADDR", value_name = "ADDRESS")]
    pub admin_addr: Option<String>,
    /// A TOML file with any of these settings, e.g. `data-addr = "0.0.0.0:80"`
    #[arg(long, env = "DORMOUSE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Operators must send it as `Authorization: Bearer TOKEN`
    #[arg(long, env = "DORMOUSE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// The largest event, in bytes: up to 33554432 [default: 6291456]
    #[arg(long, env = "DORMOUSE_EVENT_BYTES_MAX", value_name = "BYTES")]
    pub event_bytes_max: Option<usize>,
    /// The largest component that may be deployed, in bytes [default: 104857600]
    #[arg(long, env = "DORMOUSE_COMPONENT_BYTES_MAX", value_name = "BYTES")]
    pub component_bytes_max: Option<usize>,
    /// Memory that uploaded components may take together until they are deployed, in MB; more wait to be read [default: 512]
    #[arg(long, env = "DORMOUSE_UPLOADS_MEMORY_MAX_MB", value_name = "MB")]
    pub uploads_memory_max_mb: Option<u64>,
    /// Connections that callers may have open at once; fewer if the process may not open so many files [default: 10000]
    #[arg(long, env = "DORMOUSE_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: Option<usize>,
    /// Connections that one client address may have open at once [default: half of --connections-max]
    #[arg(long, env = "DORMOUSE_CONNECTIONS_PER_CLIENT_MAX", value_name = "COUNT")]
    pub connections_per_client_max: Option<usize>,
    /// Connections that functions may have open to others at once, and one function half as many; fewer if the process may
    /// not open so many files [default: 10000]
    #[arg(long, env = "DORMOUSE_OUTGOING_CONNECTIONS_MAX", value_name = "COUNT")]
    pub outgoing_connections_max: Option<usize>,
    /// How long a new connection may take to send its first request's head, in ms [default: 15000]
    #[arg(long, env = "DORMOUSE_HEAD_TIMEOUT_MS", value_name = "MS")]
    pub head_timeout_ms: Option<u64>,
    /// Memory that events may take together while they wait or are handled, in MB; more wait to be read [default: 512]
    #[arg(long, env = "DORMOUSE_EVENTS_MEMORY_MAX_MB", value_name = "MB")]
    pub events_memory_max_mb: Option<u64>,
    /// Memory that replies may take together which their callers have not read, in MB [default: 512]
    #[arg(long, env = "DORMOUSE_REPLIES_MEMORY_MAX_MB", value_name = "MB")]
    pub replies_memory_max_mb: Option<u64>,
    /// How long a client may leave what was sent to it unread before its connection is closed, in ms [default: 30000]
    #[arg(long, env = "DORMOUSE_WRITE_TIMEOUT_MS", value_name = "MS")]
    pub write_timeout_ms: Option<u64>,
    /// Instances in all, awake or parked [default: as many as there is memory for]
    #[arg(long, env = "DORMOUSE_INSTANCES_MAX", value_name = "COUNT")]
    pub instances_max: Option<usize>,
    /// Memory of the host, in MB: beyond it parked instances stop, then growth is refused [default: three quarters of the machine's]
    #[arg(long, env = "DORMOUSE_MEMORY_MAX_MB", value_name = "MB")]
    pub memory_max_mb: Option<u64>,
    /// Versions that a function may have at once [default: 1000]
    #[arg(long, env = "DORMOUSE_VERSIONS_MAX", value_name = "COUNT")]
    pub versions_max: Option<usize>,
    /// Aliases that a function may have at once [default: 1000]
    #[arg(long, env = "DORMOUSE_ALIASES_MAX", value_name = "COUNT")]
    pub aliases_max: Option<usize>,
    /// CPU time that compiling one component may take, in ms [default: 600000]
    #[arg(long, env = "DORMOUSE_COMPILE_CPU_MAX_MS", value_name = "MS")]
    pub compile_cpu_max_ms: Option<u64>,
    /// Memory that compiling one component may take, in MB [default: 4096]
    #[arg(long, env = "DORMOUSE_COMPILE_MEMORY_MAX_MB", value_name = "MB")]
    pub compile_memory_max_mb: Option<u64>,
    /// How long compiling one component may take, in ms [default: 600000]
    #[arg(long, env = "DORMOUSE_COMPILE_TIMEOUT_MS", value_name = "MS")]
    pub compile_timeout_ms: Option<u64>,
    /// How long a stopping host waits for requests and pre-stop hooks, in ms [default: 30000]
    #[arg(long, env = "DORMOUSE_DRAIN_TIMEOUT_MS", value_name = "MS")]
    pub drain_timeout_ms: Option<u64>,
    /// Default billing basis [default: execution]
    #[arg(long, env = "DORMOUSE_BILLING_BASIS", value_name = "BASIS")]
    pub billing_basis: Option<Basis>,
    /// How long records of single invocations are kept, in days; windows, which are the bill, are kept 400 [default: 30]
    #[arg(long, env = "DORMOUSE_INVOCATION_DAYS", value_name = "DAYS")]
    pub invocation_days: Option<u64>,
    /// How the host's own log looks on standard error [default: text]
    #[arg(long, env = "DORMOUSE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How the host's own log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// An object a line, for programs.
    Json,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything that must survive.
    pub state_dir: PathBuf,
    /// The data plane.
    pub data: DataConfig,
    /// The admin plane.
    pub admin: AdminConfig,
    /// Connections of functions to others.
    pub outgoing_connections_max: usize,
    /// Instances in all; none: as many as the machine allows.
    pub instances_max: Option<usize>,
    /// Their memory in all, in bytes; none: as the machine allows.
    pub memory_bytes_max: Option<u64>,
    /// Versions of one function.
    pub versions_max: usize,
    /// Aliases of one function.
    pub aliases_max: usize,
    /// What compiling one component may take.
    pub compile: CompileBounds,
    /// How long a stopping host waits.
    pub drain_timeout: Duration,
    /// What is charged by default.
    pub billing_basis: Basis,
    /// How long invocation records are kept.
    pub invocation_retention: Duration,
    /// How the host's own log looks.
    pub log_format: LogFormat,
}

/// What compiling one component may take.
#[derive(Clone, Copy, Debug)]
pub struct CompileBounds {
    /// Memory, in MB.
    pub memory_mb_max: u64,
    /// CPU time, on all cores together.
    pub cpu_max: Duration,
    /// Time, not counting that for which it waits for others.
    pub timeout: Duration,
}

/// The data plane's settings.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// The largest event.
    pub event_bytes_max: usize,
    /// What all events that wait or are handled may take together, in MB.
    pub events_memory_mb_max: u64,
    /// What all replies may take together that their callers have not read, in MB.
    pub replies_memory_mb_max: u64,
    /// Connections.
    pub connections: ConnectionBounds,
}

/// What connections to a plane may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionBounds {
    /// Connections at once.
    pub connections_max: usize,
    /// Those of one client address.
    pub per_client_max: usize,
    /// How long a new one may take to send its first head.
    pub head_timeout: Duration,
    /// How long a client may leave what was sent to it unread.
    pub write_timeout: Duration,
}

/// The admin plane's settings.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections.
    pub connections: ConnectionBounds,
    /// What operators must send.
    pub token: Option<String>,
    /// The largest component.
    pub component_bytes_max: usize,
    /// What all uploaded components may take together until they are deployed, in MB.
    pub uploads_memory_mb_max: u64,
}

impl Config {
    /// Lowers the bounds on connections to what so many open files allow: each takes one, operators must get in however
    /// many callers there are, and functions send requests as well.
    pub fn fit(&mut self, open_files_max: u64) {
        let left = usize::try_from(open_files_max.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX);
        let (data, admin) = (&mut self.data.connections, &mut self.admin.connections);
        admin.lower((left / 8).max(4));
        let quarter = left.saturating_sub(admin.connections_max) / 4;
        data.lower((quarter * 3).max(4));
        self.outgoing_connections_max = self.outgoing_connections_max.min(quarter.max(4));
    }
}

impl ConnectionBounds {
    fn lower(&mut self, connections_max: usize) {
        self.connections_max = self.connections_max.min(connections_max);
        self.per_client_max = self.per_client_max.min(self.connections_max.div_ceil(2));
    }
}

impl ServeArgs {
    /// Reads the file, if one is named, and checks everything.
    pub fn resolve(self) -> anyhow::Result<Config> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => ServeArgs::default(),
        };
        let mut faults = Vec::new();
        let config = self.over(file).check(&mut faults);
        anyhow::ensure!(faults.is_empty(), "the settings are wrong: {}", faults.join("; "));
        Ok(config)
    }

    fn over(self, file: ServeArgs) -> ServeArgs {
        ServeArgs {
            state_dir: self.state_dir.or(file.state_dir),
            data_addr: self.data_addr.or(file.data_addr),
            admin_addr: self.admin_addr.or(file.admin_addr),
            config: self.config,
            admin_token: self.admin_token.or(file.admin_token),
            event_bytes_max: self.event_bytes_max.or(file.event_bytes_max),
            component_bytes_max: self.component_bytes_max.or(file.component_bytes_max),
            uploads_memory_max_mb: self.uploads_memory_max_mb.or(file.uploads_memory_max_mb),
            connections_max: self.connections_max.or(file.connections_max),
            connections_per_client_max: self.connections_per_client_max.or(file.connections_per_client_max),
            outgoing_connections_max: self.outgoing_connections_max.or(file.outgoing_connections_max),
            head_timeout_ms: self.head_timeout_ms.or(file.head_timeout_ms),
            events_memory_max_mb: self.events_memory_max_mb.or(file.events_memory_max_mb),
            replies_memory_max_mb: self.replies_memory_max_mb.or(file.replies_memory_max_mb),
            write_timeout_ms: self.write_timeout_ms.or(file.write_timeout_ms),
            instances_max: self.instances_max.or(file.instances_max),
            memory_max_mb: self.memory_max_mb.or(file.memory_max_mb),
            versions_max: self.versions_max.or(file.versions_max),
            aliases_max: self.aliases_max.or(file.aliases_max),
            compile_cpu_max_ms: self.compile_cpu_max_ms.or(file.compile_cpu_max_ms),
            compile_memory_max_mb: self.compile_memory_max_mb.or(file.compile_memory_max_mb),
            compile_timeout_ms: self.compile_timeout_ms.or(file.compile_timeout_ms),
            drain_timeout_ms: self.drain_timeout_ms.or(file.drain_timeout_ms),
            billing_basis: self.billing_basis.or(file.billing_basis),
            invocation_days: self.invocation_days.or(file.invocation_days),
            log_format: self.log_format.or(file.log_format),
        }
    }

    fn check(self, faults: &mut Vec<String>) -> Config {
        let write_timeout_ms =
            within("write-timeout-ms", self.write_timeout_ms.unwrap_or(30_000), 100..=DAY_MS, faults);
        let head_timeout_ms = within("head-timeout-ms", self.head_timeout_ms.unwrap_or(15_000), 100..=60_000, faults);
        let connections = ConnectionBounds {
            connections_max: ADMIN_CONNECTIONS_MAX,
            per_client_max: ADMIN_CONNECTIONS_MAX / 2,
            head_timeout: Duration::from_millis(head_timeout_ms),
            write_timeout: Duration::from_millis(write_timeout_ms),
        };
        let (data, admin) = (self.data(connections, faults), self.admin(connections, faults));
        let compile = self.compile(faults);
        let mut range = |name, value, bounds| within(name, value, bounds, faults);
        let outgoing_connections_max = self.outgoing_connections_max.unwrap_or(10_000);
        range("outgoing-connections-max", outgoing_connections_max as u64, 2..=1_000_000);
        if let Some(instances_max) = self.instances_max {
            range("instances-max", instances_max as u64, 1..=10_000_000);
        }
        if let Some(memory_max_mb) = self.memory_max_mb {
            range("memory-max-mb", memory_max_mb, 64..=1 << 24);
        }
        let versions_max = self.versions_max.unwrap_or(1000);
        range("versions-max", versions_max as u64, 1..=100_000);
        let aliases_max = self.aliases_max.unwrap_or(1000);
        range("aliases-max", aliases_max as u64, 1..=100_000);
        let drain_timeout_ms = range("drain-timeout-ms", self.drain_timeout_ms.unwrap_or(30_000), 0..=3_600_000);
        let invocation_days = range("invocation-days", self.invocation_days.unwrap_or(30), 1..=3650);
        Config {
            state_dir: self.state_dir.unwrap_or_else(|| PathBuf::from(".dormouse")),
            data,
            admin,
            outgoing_connections_max,
            instances_max: self.instances_max,
            memory_bytes_max: self.memory_max_mb.map(|megabytes| megabytes << 20),
            versions_max,
            aliases_max,
            compile,
            drain_timeout: Duration::from_millis(drain_timeout_ms),
            billing_basis: self.billing_basis.unwrap_or_default(),
            invocation_retention: Duration::from_secs(invocation_days * 86_400),
            log_format: self.log_format.unwrap_or_default(),
        }
    }

    fn data(&self, connections: ConnectionBounds, faults: &mut Vec<String>) -> DataConfig {
        let address = address("data-addr", self.data_addr.as_deref(), ([127, 0, 0, 1], 8080).into(), faults);
        let mut range = |name, value, bounds| within(name, value, bounds, faults);
        let event_bytes_max = self.event_bytes_max.unwrap_or(6 << 20);
        range("event-bytes-max", event_bytes_max as u64, 1..=EVENT_BYTES_LIMIT as u64);
        let connections_max = range("connections-max", self.connections_max.unwrap_or(10_000) as u64, 1..=1_000_000);
        let half = connections_max.div_ceil(2) as usize;
        let per_client_max = self.connections_per_client_max.unwrap_or(half) as u64;
        range("connections-per-client-max", per_client_max, 1..=1_000_000);
        // At least one of the largest has room.
        let memory = 64..=1 << 20;
        let events_memory_mb_max =
            range("events-memory-max-mb", self.events_memory_max_mb.unwrap_or(512), memory.clone());
        let replies_memory_mb_max = range("replies-memory-max-mb", self.replies_memory_max_mb.unwrap_or(512), memory);
        let connections = ConnectionBounds {
            connections_max: connections_max as usize,
            per_client_max: per_client_max as usize,
            ..connections
        };
        DataConfig { address, event_bytes_max, events_memory_mb_max, replies_memory_mb_max, connections }
    }

    fn admin(&self, connections: ConnectionBounds, faults: &mut Vec<String>) -> AdminConfig {
        let address = address("admin-addr", self.admin_addr.as_deref(), ([127, 0, 0, 1], 8081).into(), faults);
        let token = self.admin_token.clone().filter(|token| !token.is_empty());
        if !address.ip().is_loopback() && token.is_none() {
            faults.push(format!(
                "`admin-addr` {address} can be reached from other machines, so `admin-token` must be set"
            ));
        }
        let component_bytes_max = self.component_bytes_max.unwrap_or(100 << 20);
        within("component-bytes-max", component_bytes_max as u64, 1..=4 << 30, faults);
        // At least one of the largest has room.
        let largest_mb = (component_bytes_max as u64).div_ceil(1 << 20);
        let uploads_memory_mb_max = self.uploads_memory_max_mb.unwrap_or(largest_mb.max(512));
        within("uploads-memory-max-mb", uploads_memory_mb_max, largest_mb..=1 << 20, faults);
        AdminConfig { address, connections, token, component_bytes_max, uploads_memory_mb_max }
    }

    fn compile(&self, faults: &mut Vec<String>) -> CompileBounds {
        let mut range =
            |name, value: Option<u64>, default, bounds| within(name, value.unwrap_or(default), bounds, faults);
        let memory_mb_max = range("compile-memory-max-mb", self.compile_memory_max_mb, 4096, 256..=1 << 20);
        let cpu_max_ms = range("compile-cpu-max-ms", self.compile_cpu_max_ms, 600_000, 1000..=DAY_MS);
        let timeout_ms = range("compile-timeout-ms", self.compile_timeout_ms, 600_000, 1000..=DAY_MS);
        CompileBounds {
            memory_mb_max,
            cpu_max: Duration::from_millis(cpu_max_ms),
            timeout: Duration::from_millis(timeout_ms),
        }
    }
}

/// A number, and a fault if it is not within its bounds.
fn within(name: &str, value: u64, bounds: RangeInclusive<u64>, faults: &mut Vec<String>) -> u64 {
    if !bounds.contains(&value) {
        faults.push(format!("`{name}` is {value}; it must be {} to {}", bounds.start(), bounds.end()));
    }
    value
}

fn read_file(path: &Path) -> anyhow::Result<ServeArgs> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read settings {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("read settings {}", path.display()))
}

fn address(name: &str, text: Option<&str>, default: SocketAddr, faults: &mut Vec<String>) -> SocketAddr {
    let Some(text) = text else { return default };
    text.parse().unwrap_or_else(|_| {
        faults.push(format!("`{name}` is `{text}`; it must be an address and a port, as `{default}`"));
        default
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_reported_together() {
        let args = ServeArgs {
            data_addr: Some("here".to_owned()),
            admin_addr: Some("0.0.0.0:1".to_owned()),
            event_bytes_max: Some(1 << 30),
            ..ServeArgs::default()
        };
        let error = args.resolve().unwrap_err().to_string();
        for name in ["data-addr", "admin-token", "event-bytes-max"] {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        std::fs::write(&path, "data-addr = \"127.0.0.1:1\"\ndrain-timeout-ms = 5\n").unwrap();
        let args = ServeArgs { config: Some(path), data_addr: Some("127.0.0.1:2".to_owned()), ..ServeArgs::default() };
        let config = args.resolve().unwrap();
        assert_eq!(config.data.address.port(), 2);
        assert_eq!(config.drain_timeout, Duration::from_millis(5));
        assert_eq!(config.admin.address.port(), 8081);
    }

    #[test]
    fn an_unknown_setting_in_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        std::fs::write(&path, "data-adr = \"127.0.0.1:1\"\n").unwrap();
        let error = ServeArgs { config: Some(path), ..ServeArgs::default() }.resolve().unwrap_err();
        assert!(format!("{error:#}").contains("data-adr"), "{error:#}");
    }
}
