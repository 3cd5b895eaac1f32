//! The host's settings: raw ones from flags, the environment and a file, made into checked ones once.
//!
//! A flag wins over its twin in the environment, that over the file, and that over the default. Every fault is
//! reported together. No other module reads settings from anywhere.

mod check;
mod file;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::access::{AccessOptions, Auth};
use crate::log::LogBounds;
use crate::meter::Basis;
use crate::proxies::Proxies;
use crate::telemetry::{LogFormat, LogLevels};
use crate::traces::{Protocol, TracesConfig};

/// Files that the host itself has open: databases, listeners, compiled code.
const OWN_FILES: u64 = 32;

/// Settings of `dormouse serve` and `dormouse up`. Each has a twin in the environment and, in kebab-case, in the file.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServeArgs {
    /// Where functions, compiled code and billing data are stored [default: .dormouse, in the current folder or, of `up`, beside the manifest]
    #[arg(long, env = "DORMOUSE_STATE_DIR", value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
    /// Where callers reach functions; port 0 asks the system for one [default: 127.0.0.1:8080]
    #[arg(long, env = "DORMOUSE_DATA_ADDR", value_name = "ADDRESS")]
    pub data_addr: Option<String>,
    /// Where operators reach the host; anything but loopback needs TLS and a key, such as --admin-token [default: 127.0.0.1:8081]
    #[arg(long, env = "DORMOUSE_ADMIN_ADDR", value_name = "ADDRESS")]
    pub admin_addr: Option<String>,
    /// A TOML file with any of these settings, e.g. `data-addr = "0.0.0.0:80"`
    #[arg(long, env = "DORMOUSE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// A key for everything: operators must send it, or a key made with `dormouse keys`, as `Authorization: Bearer TOKEN`
    #[arg(long, env = "DORMOUSE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// Whether callers need an access key for functions that do not set `auth` [default: none if --data-addr is loopback, else
    /// key]
    #[arg(long, env = "DORMOUSE_AUTH", value_name = "AUTH")]
    pub auth: Option<Auth>,
    /// Where the key is that secrets are encrypted under; made if it is not there [default: secret.key in --state-dir]
    #[arg(long, env = "DORMOUSE_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Access keys at once [default: 1000]
    #[arg(long, env = "DORMOUSE_KEYS_MAX", value_name = "COUNT")]
    pub keys_max: Option<usize>,
    /// Changes that the audit log remembers [default: 100000]
    #[arg(long, env = "DORMOUSE_AUDIT_ENTRIES_MAX", value_name = "COUNT")]
    pub audit_entries_max: Option<u64>,
    /// What asynchronous invocations may take on disk together, in MB; one function at most half of it [default: 4096]
    #[arg(long, env = "DORMOUSE_QUEUE_MAX_MB", value_name = "MB")]
    pub queue_max_mb: Option<u64>,
    /// Attempts at asynchronous invocations that may run at once, of all functions [default: 256]
    #[arg(long, env = "DORMOUSE_QUEUE_CONCURRENCY_MAX", value_name = "COUNT")]
    pub queue_concurrency_max: Option<usize>,
    /// How long asynchronous invocations are kept after their end, in ms; 0: not at all [default: 86400000]
    #[arg(long, env = "DORMOUSE_QUEUE_KEPT_MS", value_name = "MS")]
    pub queue_kept_ms: Option<u64>,
    /// How many asynchronous invocations are kept after their end [default: 100000]
    #[arg(long, env = "DORMOUSE_QUEUE_KEPT_MAX", value_name = "COUNT")]
    pub queue_kept_max: Option<u64>,
    /// The largest event, and the largest reply, that is kept after the end of an asynchronous invocation, in bytes
    /// [default: 1048576]
    #[arg(long, env = "DORMOUSE_QUEUE_KEPT_BYTES_MAX", value_name = "BYTES")]
    pub queue_kept_bytes_max: Option<usize>,
    /// Destinations in a row that one event may lead to [default: 16]
    #[arg(long, env = "DORMOUSE_QUEUE_CHAIN_MAX", value_name = "COUNT")]
    pub queue_chain_max: Option<usize>,
    /// Proxies in front of the host, by address or network (`10.0.0.0/8`), separated by commas: whom they name in
    /// X-Forwarded-For is believed to be the caller
    #[arg(long, env = "DORMOUSE_TRUSTED_PROXIES", value_name = "ADDRESSES", value_delimiter = ',')]
    pub trusted_proxies: Vec<String>,
    /// Certificate chains in PEM for TLS on both planes; separated by commas, or repeated. A client gets the first that has
    /// the name it asks for
    #[arg(long, env = "DORMOUSE_TLS_CERT", value_name = "FILE", value_delimiter = ',', requires = "tls_key")]
    pub tls_cert: Vec<PathBuf>,
    /// Their private keys in PEM, in the same order. Files that change are read again, at SIGHUP at once
    #[arg(long, env = "DORMOUSE_TLS_KEY", value_name = "FILE", value_delimiter = ',', requires = "tls_cert")]
    pub tls_key: Vec<PathBuf>,
    /// TLS with a certificate that this host signs itself, for trying; it is kept in the state directory
    #[arg(long, env = "DORMOUSE_TLS_SELF_SIGNED", conflicts_with = "tls_cert")]
    pub tls_self_signed: bool,
    /// Operators may show a certificate that one of these, in PEM, has signed, and need no key then
    #[arg(long, env = "DORMOUSE_ADMIN_CLIENT_CA", value_name = "FILE")]
    pub admin_client_ca: Option<PathBuf>,
    /// The admin plane may listen on anything but loopback without TLS, because a proxy in front of it has that
    #[arg(long, env = "DORMOUSE_ADMIN_WITHOUT_TLS")]
    pub admin_without_tls: bool,
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
    /// Requests that one connection may have under way at once over HTTP/2 [default: 100]
    #[arg(long, env = "DORMOUSE_STREAMS_MAX", value_name = "COUNT")]
    pub streams_max: Option<u32>,
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
    /// Functions that have figures of their own in `/metrics`; the others have theirs together [default: 200]
    #[arg(long, env = "DORMOUSE_METRICS_FUNCTIONS_MAX", value_name = "COUNT")]
    pub metrics_functions_max: Option<usize>,
    /// What functions' logs may take on disk together, in MB; 0: they are in memory only [default: 1024]
    #[arg(long, env = "DORMOUSE_LOGS_MAX_MB", value_name = "MB")]
    pub logs_max_mb: Option<u64>,
    /// What one function's log may take of it, in MB [default: 64]
    #[arg(long, env = "DORMOUSE_LOGS_FUNCTION_MAX_MB", value_name = "MB")]
    pub logs_function_max_mb: Option<u64>,
    /// How long lines of functions' logs are kept, in days [default: 7]
    #[arg(long, env = "DORMOUSE_LOG_DAYS", value_name = "DAYS")]
    pub log_days: Option<u64>,
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
    /// Billing basis of functions that are created through Function Compute's APIs [default: duration]
    #[arg(long, env = "DORMOUSE_FC_BILLING_BASIS", value_name = "BASIS")]
    pub fc_billing_basis: Option<Basis>,
    /// Services, and as many custom domains, that clients of Function Compute's APIs may create [default: 1000]
    #[arg(long, env = "DORMOUSE_FC_SERVICES_MAX", value_name = "COUNT")]
    pub fc_services_max: Option<usize>,
    /// Requests signed with ACS3 that are remembered, so that none is taken twice: of half an hour [default: 1000000]
    #[arg(long, env = "DORMOUSE_FC_NONCES_MAX", value_name = "COUNT")]
    pub fc_nonces_max: Option<usize>,
    /// What code that was uploaded apart from its function may take on disk, in MB, for the hour that it stays [default: 1024]
    #[arg(long, env = "DORMOUSE_FC_UPLOADS_MAX_MB", value_name = "MB")]
    pub fc_uploads_max_mb: Option<u64>,
    /// A collector that gets traces of requests by OTLP, e.g. `http://127.0.0.1:4317` [default: none]
    #[arg(long, env = "DORMOUSE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How the collector is spoken to [default: grpc]
    #[arg(long, env = "DORMOUSE_OTLP_PROTOCOL", value_name = "PROTOCOL")]
    pub otlp_protocol: Option<Protocol>,
    /// The share of requests that are traced, 0 to 1, of those whose callers do not say in `traceparent` [default: 1]
    #[arg(long, env = "DORMOUSE_TRACE_RATIO", value_name = "RATIO")]
    pub trace_ratio: Option<f64>,
    /// How the host's own log looks on standard error [default: text]
    #[arg(long, env = "DORMOUSE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is in the host's own log: a level, and others for some modules, e.g. `warn,queue=debug` [default: info, or what
    /// RUST_LOG says]
    #[arg(long, env = "DORMOUSE_LOG_LEVELS", value_name = "LEVELS")]
    pub log_levels: Option<String>,
    /// Browsers that may be signed in to the console at once; beyond them the oldest is signed out [default: 1000]
    #[arg(long, env = "DORMOUSE_CONSOLE_SESSIONS_MAX", value_name = "COUNT")]
    pub console_sessions_max: Option<usize>,
    /// Changes of instances' states that are remembered for the console's lanes [default: 65536]
    #[arg(long, env = "DORMOUSE_INSTANCE_MOVES_MAX", value_name = "COUNT")]
    pub instance_moves_max: Option<usize>,
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
    /// Access keys and the audit log.
    pub access: AccessOptions,
    /// Asynchronous invocations.
    pub queue: QueueConfig,
    /// Function Compute's APIs.
    pub fc: FcConfig,
    /// Certificates of both planes; none: they speak without TLS.
    pub tls: Option<TlsConfig>,
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
    /// Functions with figures of their own in the metrics.
    pub metrics_functions_max: usize,
    /// What is kept of functions' logs.
    pub logs: LogBounds,
    /// What compiling one component may take.
    pub compile: CompileBounds,
    /// How long a stopping host waits.
    pub drain_timeout: Duration,
    /// What is charged by default.
    pub billing_basis: Basis,
    /// How long invocation records are kept.
    pub invocation_retention: Duration,
    /// Where traces go; none: nowhere.
    pub traces: Option<TracesConfig>,
    /// How the host's own log looks.
    pub log_format: LogFormat,
    /// What is in it; none: what the environment says.
    pub log_levels: Option<LogLevels>,
    /// Changes of instances' states that are remembered.
    pub instance_moves_max: usize,
}

/// Where the host's certificates come from.
#[derive(Clone, Debug)]
pub enum TlsConfig {
    /// Files: chains with their keys.
    Files(Vec<(PathBuf, PathBuf)>),
    /// The host signs one itself.
    SelfSigned,
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

/// How asynchronous invocations are kept and run.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// What they may take on disk together.
    pub bytes_max: u64,
    /// Attempts at once, of all functions.
    pub concurrency_max: usize,
    /// How long they are kept after their end.
    pub kept_for: Duration,
    /// How many of those are kept.
    pub ended_max: u64,
    /// The largest event, and the largest reply, that is kept after the end.
    pub kept_bytes_max: usize,
    /// Destinations in a row.
    pub chain_max: usize,
}

/// Settings of Function Compute's APIs.
#[derive(Clone, Debug)]
pub struct FcConfig {
    /// What is charged for functions that are created through them.
    pub billing_basis: Basis,
    /// Services.
    pub services_max: usize,
    /// Signed requests that are remembered.
    pub nonces_max: usize,
    /// What uploads may take on disk together.
    pub uploads_bytes_max: u64,
    /// The largest component.
    pub component_bytes_max: usize,
    /// The largest event.
    pub event_bytes_max: usize,
    /// Whether programs on this machine may use the admin plane without showing anything.
    pub is_open: bool,
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
    /// What callers of functions must show that do not say so themselves.
    pub auth: Auth,
}

/// What connections to a plane may take.
#[derive(Clone, Debug)]
pub struct ConnectionBounds {
    /// Who is believed about callers, and has not one client's share.
    pub proxies: Proxies,
    /// Connections at once.
    pub connections_max: usize,
    /// Those of one client address.
    pub per_client_max: usize,
    /// Requests at once on one of HTTP/2.
    pub streams_max: u32,
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
    /// Whether programs on this machine may use it without showing anything.
    pub is_open: bool,
    /// Who signs certificates of operators, which do instead of a key.
    pub client_ca: Option<PathBuf>,
    /// The largest component.
    pub component_bytes_max: usize,
    /// What all uploaded components may take together until they are deployed, in MB.
    pub uploads_memory_mb_max: u64,
    /// Browsers that may be signed in to the console.
    pub sessions_max: usize,
}

/// Whether a host's name, as it stands in addresses, is one of this machine that no other reaches.
pub fn is_loopback_name(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
