//! Raw settings become checked ones.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::{
    AdminConfig, CompileBounds, Config, ConnectionBounds, DataConfig, FcConfig, QueueConfig, ServeArgs, TlsConfig,
};
use crate::access::{AccessOptions, Auth};
use crate::ids::KeyId;
use crate::log::LogBounds;
use crate::meter::Basis;
use crate::proxies::Proxies;
use crate::telemetry::LogLevels;
use crate::traces::TracesConfig;

/// The largest event that a host may be told to take.
const EVENT_BYTES_LIMIT: usize = 32 << 20;
/// Where a host keeps its state by default.
const STATE_DIR: &str = ".dormouse";
const DAY_MS: u64 = 86_400_000;
/// Connections to the admin plane.
const ADMIN_CONNECTIONS_MAX: usize = 1000;

impl ServeArgs {
    /// Reads the file, if one is named, and checks everything. The state is in `folder` unless they say where.
    pub fn resolve(self, folder: &Path) -> anyhow::Result<Config> {
        let mut settings = self.over_file()?;
        let mut faults = Vec::new();
        settings.state_dir.get_or_insert_with(|| folder.join(STATE_DIR));
        let config = settings.check(&mut faults);
        anyhow::ensure!(faults.is_empty(), "the settings are wrong: {}", faults.join("; "));
        Ok(config)
    }

    fn check(self, faults: &mut Vec<String>) -> Config {
        let write_timeout_ms =
            within("write-timeout-ms", self.write_timeout_ms.unwrap_or(30_000), 100..=DAY_MS, faults);
        let head_timeout_ms = within("head-timeout-ms", self.head_timeout_ms.unwrap_or(15_000), 100..=60_000, faults);
        let streams_max = self.streams_max.unwrap_or(100);
        within("streams-max", u64::from(streams_max), 1..=10_000, faults);
        let proxies = Proxies::parse(&self.trusted_proxies).unwrap_or_else(|fault| {
            faults.push(fault);
            Proxies::default()
        });
        let connections = ConnectionBounds {
            proxies,
            connections_max: ADMIN_CONNECTIONS_MAX,
            per_client_max: ADMIN_CONNECTIONS_MAX / 2,
            streams_max,
            head_timeout: Duration::from_millis(head_timeout_ms),
            write_timeout: Duration::from_millis(write_timeout_ms),
        };
        let (data, admin) = (self.data(connections.clone(), faults), self.admin(connections, faults));
        let (tls, compile, access) = (self.tls(faults), self.compile(faults), self.access(faults));
        let (logs, traces) = (self.logs(faults), self.traces(faults));
        let (queue, fc) = (self.queue(faults), self.fc((&data, &admin), faults));
        let log_levels = self.log_levels.as_deref().map(LogLevels::parse).transpose();
        let log_levels = log_levels.unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        let mut range = |name, value, bounds| within(name, value, bounds, faults);
        let instance_moves_max = self.instance_moves_max.unwrap_or(65_536);
        range("instance-moves-max", instance_moves_max as u64, 1..=10_000_000);
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
        let metrics_functions_max = self.metrics_functions_max.unwrap_or(200);
        range("metrics-functions-max", metrics_functions_max as u64, 0..=1_000_000);
        let drain_timeout_ms = range("drain-timeout-ms", self.drain_timeout_ms.unwrap_or(30_000), 0..=3_600_000);
        let invocation_days = range("invocation-days", self.invocation_days.unwrap_or(30), 1..=3650);
        Config {
            state_dir: self.state_dir.unwrap_or_default(),
            data,
            admin,
            access,
            queue,
            fc,
            tls,
            outgoing_connections_max,
            instances_max: self.instances_max,
            memory_bytes_max: self.memory_max_mb.map(|megabytes| megabytes << 20),
            versions_max,
            aliases_max,
            metrics_functions_max,
            logs,
            compile,
            drain_timeout: Duration::from_millis(drain_timeout_ms),
            billing_basis: self.billing_basis.unwrap_or_default(),
            invocation_retention: Duration::from_secs(invocation_days * 86_400),
            traces,
            log_format: self.log_format.unwrap_or_default(),
            log_levels,
            instance_moves_max,
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
        let auth = self.auth.unwrap_or(if address.ip().is_loopback() { Auth::None } else { Auth::Key });
        DataConfig { address, event_bytes_max, events_memory_mb_max, replies_memory_mb_max, connections, auth }
    }

    fn admin(&self, connections: ConnectionBounds, faults: &mut Vec<String>) -> AdminConfig {
        let address = address("admin-addr", self.admin_addr.as_deref(), ([127, 0, 0, 1], 8081).into(), faults);
        let client_ca = self.admin_client_ca.clone();
        let has_tls = self.tls_self_signed || !self.tls_cert.is_empty();
        if client_ca.is_some() && !has_tls {
            faults.push("`admin-client-ca` needs TLS: set `tls-cert` and `tls-key` as well".to_owned());
        }
        if !address.ip().is_loopback() && !has_tls && !self.admin_without_tls {
            faults.push(format!(
                "`admin-addr` {address} can be reached from other machines, so it needs TLS: set `tls-cert` and `tls-key`, or \
                 `admin-without-tls` if a proxy has it"
            ));
        }
        let is_open = address.ip().is_loopback() && self.admin_token.is_none() && client_ca.is_none();
        let component_bytes_max = self.component_bytes_max.unwrap_or(100 << 20);
        within("component-bytes-max", component_bytes_max as u64, 1..=4 << 30, faults);
        // At least one of the largest has room.
        let largest_mb = (component_bytes_max as u64).div_ceil(1 << 20);
        let uploads_memory_mb_max = self.uploads_memory_max_mb.unwrap_or(largest_mb.max(512));
        within("uploads-memory-max-mb", uploads_memory_mb_max, largest_mb..=1 << 20, faults);
        let sessions_max = self.console_sessions_max.unwrap_or(1000);
        within("console-sessions-max", sessions_max as u64, 1..=100_000, faults);
        AdminConfig {
            address,
            connections,
            is_open,
            client_ca,
            component_bytes_max,
            uploads_memory_mb_max,
            sessions_max,
        }
    }

    fn access(&self, faults: &mut Vec<String>) -> AccessOptions {
        let keys_max = self.keys_max.unwrap_or(1000);
        within("keys-max", keys_max as u64, 1..=100_000, faults);
        let audit_entries_max = self.audit_entries_max.unwrap_or(100_000);
        within("audit-entries-max", audit_entries_max, 1..=10_000_000, faults);
        let (admin_token, key_file) = (self.admin_token.clone(), self.key_file.clone());
        if admin_token.as_ref().is_some_and(|token| !is_sendable(token)) {
            faults.push(
                "`admin-token` must be of printable ASCII characters, without a space at either end; leave it out if there \
                 shall be none"
                    .to_owned(),
            );
        }
        if admin_token.as_ref().is_some_and(|token| KeyId::begins(token)) {
            faults.push(
                "`admin-token` looks like an access key of a host; choose one that does not begin with `dmk-`"
                    .to_owned(),
            );
        }
        AccessOptions { admin_token, key_file, keys_max, audit_entries_max }
    }

    fn logs(&self, faults: &mut Vec<String>) -> LogBounds {
        let mut range = |name, value, bounds| within(name, value, bounds, faults);
        let megabytes = range("logs-max-mb", self.logs_max_mb.unwrap_or(1024), 0..=1 << 24);
        let of_function = range("logs-function-max-mb", self.logs_function_max_mb.unwrap_or(64), 1..=1 << 24);
        let days = range("log-days", self.log_days.unwrap_or(7), 1..=3650);
        LogBounds {
            bytes_max: megabytes << 20,
            function_bytes_max: of_function << 20,
            kept_for: Duration::from_secs(days * 86_400),
        }
    }

    fn traces(&self, faults: &mut Vec<String>) -> Option<TracesConfig> {
        let ratio = self.trace_ratio.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&ratio) {
            faults.push(format!("`trace-ratio` is {ratio}: it must be 0 to 1, such as 0.01 for one of a hundred"));
        }
        let Some(endpoint) = self.otlp_endpoint.clone() else {
            if self.otlp_protocol.is_some() || self.trace_ratio.is_some() {
                faults.push("`otlp-protocol` and `trace-ratio` mean nothing without `otlp-endpoint`, which says where traces go".to_owned());
            }
            return None;
        };
        let is_url = endpoint.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !is_url {
            faults.push(format!(
                "`otlp-endpoint` is `{endpoint}`: it must be the address of a collector, such as `http://127.0.0.1:4317`"
            ));
        }
        Some(TracesConfig { endpoint, protocol: self.otlp_protocol.unwrap_or_default(), ratio })
    }

    fn queue(&self, faults: &mut Vec<String>) -> QueueConfig {
        let mut range = |name, value, bounds| within(name, value, bounds, faults);
        let megabytes = range("queue-max-mb", self.queue_max_mb.unwrap_or(4096), 16..=1 << 24);
        let concurrency_max = self.queue_concurrency_max.unwrap_or(256);
        range("queue-concurrency-max", concurrency_max as u64, 1..=100_000);
        let kept_ms = range("queue-kept-ms", self.queue_kept_ms.unwrap_or(DAY_MS), 0..=365 * DAY_MS);
        let ended_max = range("queue-kept-max", self.queue_kept_max.unwrap_or(100_000), 0..=100_000_000);
        let kept_bytes_max = self.queue_kept_bytes_max.unwrap_or(1 << 20);
        range("queue-kept-bytes-max", kept_bytes_max as u64, 0..=EVENT_BYTES_LIMIT as u64);
        let chain_max = self.queue_chain_max.unwrap_or(16);
        range("queue-chain-max", chain_max as u64, 1..=100);
        QueueConfig {
            bytes_max: megabytes << 20,
            concurrency_max,
            kept_for: Duration::from_millis(kept_ms),
            ended_max,
            kept_bytes_max,
            chain_max,
        }
    }

    fn fc(&self, (data, admin): (&DataConfig, &AdminConfig), faults: &mut Vec<String>) -> FcConfig {
        let mut range = |name, value, bounds| within(name, value, bounds, faults);
        let services_max = self.fc_services_max.unwrap_or(1000);
        range("fc-services-max", services_max as u64, 1..=100_000);
        let nonces_max = self.fc_nonces_max.unwrap_or(1_000_000);
        range("fc-nonces-max", nonces_max as u64, 1..=100_000_000);
        let megabytes = range("fc-uploads-max-mb", self.fc_uploads_max_mb.unwrap_or(1024), 1..=1 << 24);
        FcConfig {
            billing_basis: self.fc_billing_basis.unwrap_or(Basis::Duration),
            services_max,
            nonces_max,
            uploads_bytes_max: megabytes << 20,
            component_bytes_max: admin.component_bytes_max,
            event_bytes_max: data.event_bytes_max,
            is_open: admin.is_open,
        }
    }

    fn tls(&self, faults: &mut Vec<String>) -> Option<TlsConfig> {
        let (chains, keys) = (&self.tls_cert, &self.tls_key);
        if chains.len() != keys.len() {
            let (chains, keys) = (chains.len(), keys.len());
            faults.push(format!("`tls-cert` names {chains} files and `tls-key` {keys}; each chain needs its key"));
        }
        match (self.tls_self_signed, chains.is_empty()) {
            (true, true) => Some(TlsConfig::SelfSigned),
            (true, false) => {
                faults.push("`tls-self-signed` and `tls-cert` exclude each other; leave one out".to_owned());
                None
            }
            (false, true) => None,
            (false, false) => Some(TlsConfig::Files(chains.iter().cloned().zip(keys.iter().cloned()).collect())),
        }
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

/// Whether a token can stand in a field of HTTP as it is.
fn is_sendable(token: &str) -> bool {
    !token.is_empty() && token.trim() == token && token.bytes().all(|byte| (b' '..=b'~').contains(&byte))
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
        let error = args.resolve(Path::new("")).unwrap_err().to_string();
        for name in ["data-addr", "admin-without-tls", "event-bytes-max"] {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn an_admin_plane_that_others_reach_needs_tls() {
        let everywhere = || ServeArgs { admin_addr: Some("0.0.0.0:1".to_owned()), ..ServeArgs::default() };
        let said = everywhere().resolve(Path::new("")).unwrap_err().to_string();
        assert!(said.contains("`tls-cert`") && said.contains("`admin-without-tls`"), "{said}");
        for args in [
            ServeArgs { tls_self_signed: true, ..everywhere() },
            ServeArgs { admin_without_tls: true, ..everywhere() },
            ServeArgs { admin_client_ca: Some("ca.pem".into()), tls_self_signed: true, ..everywhere() },
        ] {
            assert!(!args.resolve(Path::new("")).unwrap().admin.is_open);
        }
    }

    #[test]
    fn planes_ask_for_keys_unless_they_are_on_loopback_or_told_otherwise() {
        let token = || Some("secret".to_owned());
        for (data, admin_token, auth, expected) in [
            ("127.0.0.1:1", None, None, (Auth::None, true)),
            ("0.0.0.0:1", None, None, (Auth::Key, true)),
            ("[::]:1", None, Some(Auth::None), (Auth::None, true)),
            ("[::1]:1", token(), None, (Auth::None, false)),
            ("127.0.0.1:1", None, Some(Auth::Key), (Auth::Key, true)),
        ] {
            let args = ServeArgs { data_addr: Some(data.to_owned()), admin_token, auth, ..ServeArgs::default() };
            let config = args.resolve(Path::new("")).unwrap();
            assert_eq!((config.data.auth, config.admin.is_open), expected, "{data}");
        }
        let refused = |token: &str| {
            ServeArgs { admin_token: Some(token.to_owned()), ..ServeArgs::default() }.resolve(Path::new(""))
        };
        assert!(refused("dmk-1").unwrap_err().to_string().contains("dmk-"));
        for token in ["", " x", "x ", "\u{fc}", "a\nb"] {
            assert!(refused(token).unwrap_err().to_string().contains("`admin-token` must be"), "{token:?}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        std::fs::write(&path, "data-addr = \"127.0.0.1:1\"\ndrain-timeout-ms = 5\n").unwrap();
        let args = ServeArgs { config: Some(path), data_addr: Some("127.0.0.1:2".to_owned()), ..ServeArgs::default() };
        let config = args.resolve(Path::new("")).unwrap();
        assert_eq!(config.data.address.port(), 2);
        assert_eq!(config.drain_timeout, Duration::from_millis(5));
        assert_eq!(config.admin.address.port(), 8081);
    }

    #[test]
    fn an_unknown_setting_in_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        std::fs::write(&path, "data-adr = \"127.0.0.1:1\"\n").unwrap();
        let error = ServeArgs { config: Some(path), ..ServeArgs::default() }.resolve(Path::new("")).unwrap_err();
        assert!(format!("{error:#}").contains("data-adr"), "{error:#}");
    }
}
