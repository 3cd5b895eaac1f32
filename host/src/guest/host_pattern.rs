//! Which hosts a function may call: the patterns of `allowedOutboundHosts`.
//!
//! Checked when a function is configured, matched before any DNS lookup.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// One entry of `allowedOutboundHosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    host: HostPart,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPart {
    Any,
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: hosts below the domain, not the domain itself.
    Below(String),
}

/// An entry that is not a valid pattern.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a host: use `example.com`, `example.com:8443`, `*.example.com`, `[::1]:80` or `*`")]
pub struct InvalidPattern(String);

impl FromStr for HostPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<HostPattern, InvalidPattern> {
        let invalid = || InvalidPattern(text.chars().take(256).collect());
        let (host, port) = split_port(text).ok_or_else(invalid)?;
        let host = host.to_ascii_lowercase();
        let plain = |host: &str| {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            !host.is_empty() && host.bytes().all(valid)
        };
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match host.strip_prefix('*') {
            Some("") => HostPart::Any,
            Some(domain) if domain.starts_with('.') && plain(&domain[1..]) => HostPart::Below(domain.to_owned()),
            None if plain(&host) => HostPart::Exact(host),
            None if address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()) => {
                HostPart::Exact(host)
            }
            Some(_) | None => return Err(invalid()),
        };
        Ok(HostPattern { host, port })
    }
}

/// Splits `host:port`. The port may be absent, but not 0.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let after_address = text.rfind(']').map_or(0, |end| end + 1);
    match text[after_address..].rfind(':') {
        None => Some((text, None)),
        Some(colon) => {
            let (host, port) = text.split_at(after_address + colon);
            let port: u16 = port[1..].parse().ok()?;
            (port > 0).then_some((host, Some(port)))
        }
    }
}

impl HostPattern {
    /// True if the pattern covers a request to `host` on `port`. A pattern without a port covers every port.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let host_matches = match &self.host {
            HostPart::Any => true,
            HostPart::Exact(exact) => *exact == host,
            HostPart::Below(domain) => host.len() > domain.len() && host.ends_with(domain.as_str()),
        };
        host_matches && self.port.is_none_or(|own| own == port)
    }
}

/// The address that a URL's host is, if it is one and no name; IPv6 is in brackets.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

impl HostPattern {
    /// Whether this names one address, and this one: a literal or `localhost`, and the port.
    pub(super) fn is_exactly(&self, address: SocketAddr) -> bool {
        let HostPart::Exact(host) = &self.host else { return false };
        let named = literal(host).map_or(host == "localhost" && address.ip().is_loopback(), |own| own == address.ip());
        named && self.port == Some(address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_they_say() {
        let cases = [
            ("example.com", "example.com", 80, true),
            ("example.com", "EXAMPLE.com", 443, true),
            ("example.com", "a.example.com", 80, false),
            ("example.com:80", "example.com", 81, false),
            ("*.example.com", "a.b.example.com", 1, true),
            ("*.example.com", "example.com", 1, false),
            ("*.example.com", "badexample.com", 1, false),
            ("*", "anything", 9, true),
            ("*:443", "anything", 80, false),
            ("[::1]:80", "[::1]", 80, true),
            ("[::1]", "[::2]", 80, false),
        ];
        for (pattern, host, port, expected) in cases {
            let parsed: HostPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(host, port), expected, "{pattern} {host}:{port}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "http://x", "a:b", "a:0", "a:99999", "**", "*a", "a/b", "[zz]", "::1"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }
}
