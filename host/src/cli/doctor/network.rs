//! Whether the ports are free, or a Dormouse has them already.

use std::net::{IpAddr, TcpListener};

use anyhow::Context;
use reqwest::Url;

use super::super::client::ClientArgs;
use super::super::client_error::ClientError;
use super::Finding;

const DATA: &str = "data plane";
const ADMIN: &str = "admin plane";

pub(super) async fn check(arguments: &ClientArgs) -> anyhow::Result<Vec<Finding>> {
    let client = arguments.client()?;
    let admin = match client.is_ready().await {
        Ok(true) => Finding::ok(ADMIN, format!("a Dormouse serves {} and is ready", host_of(&arguments.admin)?)),
        Ok(false) => Finding::warn(ADMIN, format!("a Dormouse serves {} and is not ready", host_of(&arguments.admin)?))
            .remedy("it may still be starting or draining; its log says more"),
        Err(error) => nobody(ADMIN, &arguments.admin, error, "--admin-addr")?,
    };
    let address = client.data().await.clone();
    let data = match client.recognise_data_plane().await {
        Ok(()) => Finding::ok(DATA, format!("a Dormouse serves {}", host_of(&address)?)),
        Err(error) => nobody(DATA, &address, error, "--data-addr")?,
    };
    let on_the_way = [&address, &arguments.admin].into_iter().filter(|url| is_read_on_the_way(url)).map(|url| {
        Finding::warn("encryption", format!("whatever is sent to {url} can be read on the way there"))
            .remedy("give the host a certificate with `--tls-cert` and `--tls-key`, and use https://")
    });
    Ok([data, admin].into_iter().chain(on_the_way).collect())
}

/// Whether requests to an address leave this machine without TLS.
fn is_read_on_the_way(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme() == "http" && !is_here
}

/// What it means that no Dormouse answers at an address.
fn nobody(subject: &'static str, url: &Url, error: ClientError, flag: &str) -> anyhow::Result<Finding> {
    let address = host_of(url)?;
    let elsewhere = format!("stop that program, or choose another port with `dormouse serve {flag} 127.0.0.1:PORT`");
    Ok(match error {
        ClientError::Unreachable { .. } => match TcpListener::bind(&address) {
            Ok(_) => Finding::ok(subject, format!("{address} is free")),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                Finding::fail(subject, format!("{address} is taken by a program that takes no connections"))
                    .remedy(elsewhere)
            }
            Err(error) => {
                Finding::warn(subject, format!("no host at {address}, and a host here could not have it: {error}"))
            }
        },
        ClientError::Untrusted { .. } => {
            Finding::warn(subject, error.to_string()).remedy("pass it with `--ca` or DORMOUSE_CA")
        }
        ClientError::Refused(problem) => {
            Finding::warn(subject, format!("{address}: {} ({})", problem.detail, problem.code))
                .remedy("pass the token with `--admin-token` or DORMOUSE_ADMIN_TOKEN")
        }
        ClientError::Foreign { .. } | ClientError::Broken { .. } => {
            Finding::fail(subject, format!("{address} is taken by something that is no Dormouse")).remedy(elsewhere)
        }
    })
}

/// `127.0.0.1:8080` of a URL.
fn host_of(url: &Url) -> anyhow::Result<String> {
    let (host, port) = (url.host_str().context("an address without a host")?, url.port_or_known_default());
    Ok(format!("{host}:{}", port.context("an address without a port")?))
}

#[cfg(test)]
mod tests {
    use super::super::super::client::Client;
    use super::super::super::trust::Trust;
    use super::super::Level;
    use super::*;

    fn arguments(address: std::net::SocketAddr) -> ClientArgs {
        let url: Url = format!("http://{address}").parse().unwrap();
        ClientArgs { admin: url.clone(), data: Some(url), admin_token: None, trust: Trust::default(), json: false }
    }

    #[test]
    fn what_leaves_this_machine_without_tls_is_named() {
        for (url, is_read) in [
            ("http://127.0.0.1:8080", false),
            ("http://[::1]:8080", false),
            ("http://localhost:8080", false),
            ("http://10.0.0.1:8080", true),
            ("http://shop.example", true),
            ("https://shop.example", false),
        ] {
            assert_eq!(is_read_on_the_way(&url.parse().unwrap()), is_read, "{url}");
        }
    }

    #[tokio::test]
    async fn a_free_port_is_fine_and_a_foreign_one_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let arguments = arguments(address);
        let stranger = async {
            loop {
                drop(listener.accept().await);
            }
        };
        let taken = tokio::select! {
            findings = check(&arguments) => findings.unwrap(),
            () = stranger => unreachable!(),
        };
        assert!(taken.iter().all(|finding| finding.level == Level::Fail), "{taken:?}");
        drop(listener);
        let free = check(&arguments).await.unwrap();
        assert!(free.iter().all(|finding| finding.level == Level::Ok), "{free:?}");
    }

    #[tokio::test]
    async fn an_unreachable_host_is_named_with_the_way_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let arguments = arguments(listener.local_addr().unwrap());
        drop(listener);
        let client: Client = arguments.client().unwrap();
        let error = client.functions().await.unwrap_err().to_string();
        assert!(error.contains(arguments.admin.as_str().trim_end_matches('/')), "{error}");
        assert!(error.contains("dormouse serve") && error.contains("refused"), "{error}");
    }
}
