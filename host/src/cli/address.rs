//! Addresses of hosts: as people write them, and what stands at them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reqwest::Url;

/// Where a host's data plane listens by default.
pub(super) const DATA_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Reads an address of a host; `127.0.0.1:8081` is enough.
pub(super) fn address(text: &str) -> anyhow::Result<Url> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&whole)?;
    anyhow::ensure!(matches!(url.scheme(), "http" | "https"), "addresses of hosts begin with http:// or https://");
    anyhow::ensure!(url.has_host(), "there is no host in it");
    Ok(url)
}

/// The data plane's URL, for whoever reaches the admin plane at `admin`, of a host that bound `address`. With TLS the name
/// stays, because it is what the certificate is for.
pub(super) fn data_url(admin: &Url, address: SocketAddr) -> Url {
    let mut url = admin.clone();
    url.set_path("/");
    if !address.ip().is_unspecified() && url.scheme() == "http" {
        // What has a host and `http` takes an address; `address` has seen to both.
        let _ = url.set_ip_host(address.ip());
    }
    let _ = url.set_port(Some(address.port()));
    url
}

/// An address below another.
pub(super) fn joined(base: &Url, path: &[&str], query: &[(&str, String)]) -> Url {
    let mut url = base.clone();
    // Only an address without a host refuses segments, and `address` has refused those.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(address("127.0.0.1:8081").unwrap().as_str(), "http://127.0.0.1:8081/");
        assert_eq!(address("http://host/prefix").unwrap().as_str(), "http://host/prefix");
        for bad in ["", "ftp://host", "http://", "https://"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_data_plane_is_where_the_host_says_seen_from_here() {
        let admin = address("http://gate.example:9001").unwrap();
        let url = |bound: &str| data_url(&admin, bound.parse().unwrap()).to_string();
        assert_eq!(url("0.0.0.0:9000"), "http://gate.example:9000/");
        assert_eq!(url("[::]:9000"), "http://gate.example:9000/");
        assert_eq!(url("127.0.0.1:9000"), "http://127.0.0.1:9000/");
        let secure = address("https://gate.example:9001").unwrap();
        assert_eq!(data_url(&secure, "10.0.0.1:9000".parse().unwrap()).as_str(), "https://gate.example:9000/");
    }

    #[test]
    fn paths_and_queries_are_escaped() {
        let base = address("http://host:1/prefix/").unwrap();
        let url = joined(&base, &["invoke", "a/b"], &[("qualifier", "x y".to_owned())]);
        assert_eq!(url.as_str(), "http://host:1/prefix/invoke/a%2Fb?qualifier=x+y");
    }
}
