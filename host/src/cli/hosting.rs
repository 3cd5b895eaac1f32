//! Running a host in this process, for `serve` and `up`: start it, say where it is, say how it ended.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config::ServeArgs;
use crate::{Addresses, Server, Stopped};

use super::output;

/// A host that has started, and what a client of it needs.
pub(super) struct Started {
    pub(super) server: Server,
    pub(super) addresses: Addresses,
    pub(super) admin_token: Option<String>,
    pub(super) state_dir: PathBuf,
}

/// Checks the settings, sets up logging and binds both planes. The state is in `folder` unless the settings say where.
pub(super) async fn start(arguments: ServeArgs, folder: &Path) -> anyhow::Result<Started> {
    let config = arguments.resolve(folder)?;
    crate::telemetry::init(config.log_format, config.log_levels.as_ref());
    let (admin_token, state_dir) = (config.access.admin_token.clone(), config.state_dir.clone());
    let server = Server::start(config).await?;
    let addresses = server.addresses();
    Ok(Started { server, addresses, admin_token, state_dir })
}

/// The first line of stdout for programs. They wait for it, so it is flushed.
pub(super) fn announce_as_json(addresses: &Addresses) -> io::Result<()> {
    output::print(&format!(r#"{{"data": "{}", "admin": "{}"}}"#, addresses.data, addresses.admin))
}

/// An address that a client on this machine can call.
pub(super) fn url(address: SocketAddr, has_tls: bool) -> String {
    let address = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), v6.port()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address,
    };
    format!("{}://{address}", if has_tls { "https" } else { "http" })
}

/// Says how the host ended.
pub(super) fn farewell(stopped: &Stopped, as_json: bool) -> io::Result<()> {
    let Stopped { pre_stops, instances, unfinished } = stopped;
    if as_json {
        let stopped = json!({"stopped": {"instances": instances, "preStops": pre_stops, "unfinished": unfinished}});
        return output::print(&stopped.to_string());
    }
    let instances = output::several(*instances as u64, "instance");
    let hooks = output::several(*pre_stops, "pre-stop hook");
    output::print(&format!("stopped: {instances}, {hooks} ran, {unfinished} cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mean_all_interfaces_are_called_through_loopback() {
        assert_eq!(url("0.0.0.0:80".parse().unwrap(), false), "http://127.0.0.1:80");
        assert_eq!(url("[::]:80".parse().unwrap(), false), "http://[::1]:80");
        assert_eq!(url("10.0.0.1:80".parse().unwrap(), false), "http://10.0.0.1:80");
        assert_eq!(url("0.0.0.0:443".parse().unwrap(), true), "https://127.0.0.1:443");
    }
}
