//! The file of settings, under those of the command line and the environment.

use std::path::Path;

use anyhow::Context as _;

use super::ServeArgs;

impl ServeArgs {
    /// With what the file says where nothing else does, if one is named.
    pub(super) fn over_file(self) -> anyhow::Result<ServeArgs> {
        let Some(path) = &self.config else { return Ok(self) };
        let file = read(path)?;
        Ok(self.over(file))
    }

    fn over(self, file: ServeArgs) -> ServeArgs {
        ServeArgs {
            state_dir: self.state_dir.or(file.state_dir),
            data_addr: self.data_addr.or(file.data_addr),
            admin_addr: self.admin_addr.or(file.admin_addr),
            config: self.config,
            admin_token: self.admin_token.or(file.admin_token),
            auth: self.auth.or(file.auth),
            key_file: self.key_file.or(file.key_file),
            keys_max: self.keys_max.or(file.keys_max),
            queue_max_mb: self.queue_max_mb.or(file.queue_max_mb),
            queue_concurrency_max: self.queue_concurrency_max.or(file.queue_concurrency_max),
            queue_kept_ms: self.queue_kept_ms.or(file.queue_kept_ms),
            queue_kept_max: self.queue_kept_max.or(file.queue_kept_max),
            queue_kept_bytes_max: self.queue_kept_bytes_max.or(file.queue_kept_bytes_max),
            queue_chain_max: self.queue_chain_max.or(file.queue_chain_max),
            audit_entries_max: self.audit_entries_max.or(file.audit_entries_max),
            trusted_proxies: if self.trusted_proxies.is_empty() { file.trusted_proxies } else { self.trusted_proxies },
            tls_cert: if self.tls_cert.is_empty() { file.tls_cert } else { self.tls_cert },
            tls_key: if self.tls_key.is_empty() { file.tls_key } else { self.tls_key },
            tls_self_signed: self.tls_self_signed || file.tls_self_signed,
            admin_client_ca: self.admin_client_ca.or(file.admin_client_ca),
            admin_without_tls: self.admin_without_tls || file.admin_without_tls,
            event_bytes_max: self.event_bytes_max.or(file.event_bytes_max),
            component_bytes_max: self.component_bytes_max.or(file.component_bytes_max),
            uploads_memory_max_mb: self.uploads_memory_max_mb.or(file.uploads_memory_max_mb),
            connections_max: self.connections_max.or(file.connections_max),
            connections_per_client_max: self.connections_per_client_max.or(file.connections_per_client_max),
            streams_max: self.streams_max.or(file.streams_max),
            outgoing_connections_max: self.outgoing_connections_max.or(file.outgoing_connections_max),
            head_timeout_ms: self.head_timeout_ms.or(file.head_timeout_ms),
            events_memory_max_mb: self.events_memory_max_mb.or(file.events_memory_max_mb),
            replies_memory_max_mb: self.replies_memory_max_mb.or(file.replies_memory_max_mb),
            write_timeout_ms: self.write_timeout_ms.or(file.write_timeout_ms),
            instances_max: self.instances_max.or(file.instances_max),
            memory_max_mb: self.memory_max_mb.or(file.memory_max_mb),
            versions_max: self.versions_max.or(file.versions_max),
            aliases_max: self.aliases_max.or(file.aliases_max),
            metrics_functions_max: self.metrics_functions_max.or(file.metrics_functions_max),
            logs_max_mb: self.logs_max_mb.or(file.logs_max_mb),
            logs_function_max_mb: self.logs_function_max_mb.or(file.logs_function_max_mb),
            log_days: self.log_days.or(file.log_days),
            otlp_endpoint: self.otlp_endpoint.or(file.otlp_endpoint),
            otlp_protocol: self.otlp_protocol.or(file.otlp_protocol),
            trace_ratio: self.trace_ratio.or(file.trace_ratio),
            log_levels: self.log_levels.or(file.log_levels),
            console_sessions_max: self.console_sessions_max.or(file.console_sessions_max),
            instance_moves_max: self.instance_moves_max.or(file.instance_moves_max),
            compile_cpu_max_ms: self.compile_cpu_max_ms.or(file.compile_cpu_max_ms),
            compile_memory_max_mb: self.compile_memory_max_mb.or(file.compile_memory_max_mb),
            compile_timeout_ms: self.compile_timeout_ms.or(file.compile_timeout_ms),
            drain_timeout_ms: self.drain_timeout_ms.or(file.drain_timeout_ms),
            billing_basis: self.billing_basis.or(file.billing_basis),
            invocation_days: self.invocation_days.or(file.invocation_days),
            fc_billing_basis: self.fc_billing_basis.or(file.fc_billing_basis),
            fc_services_max: self.fc_services_max.or(file.fc_services_max),
            fc_nonces_max: self.fc_nonces_max.or(file.fc_nonces_max),
            fc_uploads_max_mb: self.fc_uploads_max_mb.or(file.fc_uploads_max_mb),
            log_format: self.log_format.or(file.log_format),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<ServeArgs> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read settings {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("read settings {}", path.display()))
}
