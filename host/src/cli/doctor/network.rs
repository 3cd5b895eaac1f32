//! Whether the ports are free, or a Dormouse has them already.

use std::net::TcpListener;

use anyhow::Context;
use reqwest::Url;

use super::super::client_args::ClientArgs;
use super::super::client_error::ClientError;
use super::super::output;
use super::Finding;
use crate::config::is_loopback_name;

const DATA: &str = "data plane";
const ADMIN: &str = "admin plane";
/// How many functions are named that are open to everybody.
const OPEN_NAMED_MAX: usize = 20;

pub(super) async fn check(arguments: &ClientArgs) -> anyhow::Result<Vec<Finding>> {
    let client = arguments.client()?;
    let admin = match client.is_ready().await {
        Ok(true) => Finding::ok(ADMIN, format!("a Dormouse serves {} and is ready", host_of(client.admin())?)),
        Ok(false) => Finding::warn(ADMIN, format!("a Dormouse serves {} and is not ready", host_of(client.admin())?))
            .remedy("it may still be starting or draining; its log says more"),
        Err(error) => nobody(ADMIN, client.admin(), error, "--admin-addr")?,
    };
    // A host that does not let this client in does not say where its data plane is; what it answered is said already.
    let Ok(address) = client.data().await.cloned() else { return Ok(vec![admin]) };
    let data = match client.recognise_data_plane().await {
        Ok(()) => Finding::ok(DATA, format!("a Dormouse serves {}", host_of(&address)?)),
        Err(error) => nobody(DATA, &address, error, "--data-addr")?,
    };
    let functions = client.functions().await.map(|listed| listed.value.functions).unwrap_or_default();
    let open: Vec<&str> =
        functions.iter().filter(|function| function.open).map(|function| function.name.as_str()).collect();
    let on_the_way = [&address, client.admin()].into_iter().filter(|url| is_read_on_the_way(url)).map(|url| {
        Finding::warn("encryption", format!("whatever is sent to {url} can be read on the way there"))
            .remedy("give the host a certificate with `--tls-cert` and `--tls-key`, and use https://")
    });
    Ok([data, admin].into_iter().chain(on_the_way).chain(open_to_strangers(&open, &address)).collect())
}

/// What callers on other machines can call without a key.
fn open_to_strangers(open: &[&str], data: &Url) -> Option<Finding> {
    if open.is_empty() || is_here(data) {
        return None;
    }
    let named = open.iter().take(OPEN_NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let text = format!("callers need no key for {} at {data}: {named}", output::several(open.len() as u64, "function"));
    Some(Finding::warn("keys", text).remedy("set their `auth` to `key`, and make keys with `dormouse keys create`"))
}

/// Whether requests to an address leave this machine without TLS.
fn is_read_on_the_way(url: &Url) -> bool {
    url.scheme() == "http" && !is_here(url)
}

fn is_here(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback_name)
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
                .remedy("pass an access key with `--key` or DORMOUSE_KEY, or use `dormouse login`")
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
    use super::super::Level;
    use super::*;

    fn arguments(address: std::net::SocketAddr) -> ClientArgs {
        let url: Url = format!("http://{address}").parse().unwrap();
        ClientArgs { admin: Some(url.clone()), data: Some(url), ..ClientArgs::default() }
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

    #[test]
    fn functions_that_strangers_can_call_are_named() {
        let told = |open: &[&str], url: &str| open_to_strangers(open, &url.parse().unwrap());
        let finding = told(&["a", "c"], "https://shop.example").unwrap();
        assert!(finding.level == Level::Warn && finding.text.ends_with(": a, c"), "{finding:?}");
        assert_eq!(told(&["a"], "http://127.0.0.1:8080"), None);
        assert_eq!(told(&[], "https://shop.example"), None);
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
        let client = arguments.client().unwrap();
        let error = client.functions().await.unwrap_err().to_string();
        assert!(error.contains(client.admin().as_str().trim_end_matches('/')), "{error}");
        assert!(error.contains("dormouse serve") && error.contains("refused"), "{error}");
    }
}
