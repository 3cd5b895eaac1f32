//! Proxies in front of the host: what they say of a caller is believed, and what anybody else says is not.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::{IpNet, Ipv4Net};

/// The addresses that a request came through, the caller's own first.
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http` or `https`, as the caller asked.
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What only a proxy can know.
const OTHERS: [HeaderName; 4] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
];

/// Bits of an address of version 6 before the one of version 4 that it stands for (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// Those that are believed; cheap to clone. By default nobody.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<[IpNet]>);

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Whose connection it came on.
    pub peer: IpAddr,
    /// Whether that is a proxy which is believed.
    pub is_proxied: bool,
    /// Whether the connection has TLS.
    pub has_tls: bool,
}

impl Proxies {
    /// Addresses and networks (CIDR) as operators write them.
    pub fn parse(names: &[String]) -> Result<Proxies, String> {
        // Peers are looked for as addresses of version 4, where they are such.
        let plain = |network: IpNet| match network {
            IpNet::V6(mapped) if mapped.prefix_len() >= MAPPED_BITS => match mapped.addr().to_ipv4_mapped() {
                Some(address) => Ipv4Net::new(address, mapped.prefix_len() - MAPPED_BITS).map_or(network, IpNet::V4),
                None => network,
            },
            network => network,
        };
        let one = |name: &String| {
            let address = || name.trim().parse().map(|address: IpAddr| IpNet::from(address));
            let wrong = |_| {
                format!(
                    "`trusted-proxies` has `{name}`; it must be an address such as 10.0.0.1, or a network such as 10.0.0.0/8"
                )
            };
            name.trim().parse().or_else(|_| address()).map(plain).map_err(wrong)
        };
        Ok(Proxies(names.iter().map(one).collect::<Result<_, _>>()?))
    }

    /// Whether it is one of them.
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Who sent a request: whose connection it came on or, if that is a proxy, whom it names. A proxy that names another one is believed
    /// in that as well.
    pub fn caller(&self, peer: IpAddr, fields: &HeaderMap) -> IpAddr {
        let mut caller = peer;
        let named: Vec<&[u8]> =
            fields.get_all(FOR).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
        for name in named.iter().rev().filter(|name| !name.trim_ascii().is_empty()) {
            if !self.has(caller) {
                break;
            }
            let Some(address) = std::str::from_utf8(name).ok().and_then(|name| address(name.trim())) else { break };
            caller = address;
        }
        caller
    }
}

/// The address of an entry, which some proxies write with its port.
fn address(name: &str) -> Option<IpAddr> {
    let plain = name.parse().or_else(|_| name.trim_matches(['[', ']']).parse());
    let address = plain.or_else(|_| name.parse().map(|with_port: SocketAddr| with_port.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

impl Hop {
    /// Tells a function how its request came, in the fields that proxies use. What others than proxies wrote there goes.
    pub fn tell(&self, fields: &mut HeaderMap) {
        let told = || [FOR, PROTO].into_iter().chain(OTHERS);
        // CGI and its like take `_` for `-`, and who writes the one could say what the other says.
        let odd: Vec<HeaderName> = fields.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
        for name in odd.iter().filter(|name| told().any(|own| own.as_str() == name.as_str().replace('_', "-"))) {
            fields.remove(name);
        }
        if !self.is_proxied {
            told().for_each(|name| drop(fields.remove(name)));
        }
        let before = fields.get_all(FOR).iter().map(HeaderValue::as_bytes).filter(|value| !value.is_empty());
        let peer = self.peer.to_string();
        let named = before.chain([peer.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
        // Both parts are values of fields, and so is the whole.
        if let Ok(named) = HeaderValue::from_bytes(&named) {
            fields.insert(FOR, named);
        }
        let proto = HeaderValue::from_static(if self.has_tls { "https" } else { "http" });
        fields.entry(PROTO).or_insert(proto);
    }

    /// Whether the caller used TLS, as far as fields that [`Hop::tell`] has written say so.
    pub fn is_secure(fields: &HeaderMap) -> bool {
        fields.get(PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(named: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in named {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    fn proxies(names: &[&str]) -> Proxies {
        Proxies::parse(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_caller_is_whom_the_last_proxy_that_is_believed_names() {
        let own = proxies(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]);
        for (peer, named, caller) in [
            ("203.0.113.9", &["198.51.100.7"][..], "203.0.113.9"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.7"], "198.51.100.7"),
            ("192.0.2.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("2001:db8::1", &["[2001:db8:0:1::9]:443"], "2001:db8:0:1::9"),
            ("10.1.2.3", &["::ffff:198.51.100.7"], "198.51.100.7"),
            // What the caller wrote itself stands before what proxies add.
            ("10.1.2.3", &["6.6.6.6, 198.51.100.7, 10.9.9.9"], "198.51.100.7"),
            ("10.1.2.3", &["6.6.6.6", "198.51.100.7 ,10.9.9.9"], "198.51.100.7"),
            ("10.1.2.3", &["10.4.4.4, 10.9.9.9"], "10.4.4.4"),
            ("10.1.2.3", &["198.51.100.7, unknown"], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.7,, "], "198.51.100.7"),
        ] {
            let fields = fields(&named.iter().map(|value| ("x-forwarded-for", *value)).collect::<Vec<_>>());
            assert_eq!(own.caller(peer.parse().unwrap(), &fields).to_string(), caller, "{peer} {named:?}");
        }
        assert_eq!(
            Proxies::default()
                .caller("10.1.2.3".parse().unwrap(), &fields(&[("x-forwarded-for", "1.1.1.1")]))
                .to_string(),
            "10.1.2.3"
        );
        let mapped = proxies(&["::ffff:10.0.0.0/104", " ::ffff:192.0.2.1"]);
        assert!(["10.9.9.9", "192.0.2.1"].iter().all(|address| mapped.has(address.parse().unwrap())));
        assert!(!mapped.has("11.0.0.1".parse().unwrap()));
        for wrong in ["example.com", "10.0.0.0/33", ""] {
            assert!(Proxies::parse(&[wrong.to_owned()]).unwrap_err().contains(&format!("`{wrong}`")));
        }
    }

    #[test]
    fn a_function_is_told_what_is_known_and_nothing_else() {
        let claimed = [
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("forwarded", "for=198.51.100.7"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-own", "stays"),
        ];
        let told = |is_proxied, has_tls| {
            let mut fields = fields(&claimed);
            Hop { peer: "10.1.2.3".parse().unwrap(), is_proxied, has_tls }.tell(&mut fields);
            fields
        };
        let expected = [("x-forwarded-for", "10.1.2.3"), ("x-forwarded-proto", "http"), ("x-own", "stays")];
        assert_eq!(told(false, false), fields(&expected));
        assert!(Hop::is_secure(&told(false, true)) && !Hop::is_secure(&told(false, false)));
        let mut expected = fields(&claimed);
        expected.remove("x_forwarded_for");
        expected.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.7, 10.1.2.3"));
        assert_eq!(told(true, false), expected);
    }
}
