//! Where a guest may connect to: the hosts its function names, and of the addresses behind their names none that only the
//! host itself should reach.
//!
//! A name is resolved once, and the connection goes to an address that was checked. Guarded are the host's own listeners,
//! since a guest could act as an operator there, and addresses where clouds answer a machine's questions about its own
//! credentials. A function reaches one only if its configuration names that very address and port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::uri::Scheme;
use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{self, Connected, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use super::host_pattern::{self, HostPattern};

/// Metadata services of clouds that are not at link-local addresses: Alibaba Cloud, Azure, AWS and Google Cloud over IPv6.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// What all guests share of the host's network.
pub struct Network {
    /// Where this host listens.
    listeners: Vec<SocketAddr>,
    connections_max: usize,
    /// One for each connection to others.
    places: Arc<Semaphore>,
}

impl Network {
    /// A network whose `listeners` guests cannot reach, and in which they may have so many connections to others.
    pub fn new(listeners: Vec<SocketAddr>, connections_max: usize) -> Network {
        Network { listeners, connections_max, places: Arc::new(Semaphore::new(connections_max)) }
    }
}

/// Where the guests of one function may connect to.
pub(super) struct Reach {
    allowed: Vec<HostPattern>,
    network: Arc<Network>,
    /// One for each connection of this function.
    places: Arc<Semaphore>,
}

/// Why no connection was made, beside what the network says.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReachError {
    /// The address is guarded.
    #[error("{0} is guarded")]
    Guarded(SocketAddr),
    /// The name has no address.
    #[error("no address: {0}")]
    Unresolved(io::Error),
    /// There are as many connections as there may be.
    #[error("too many connections are open")]
    Full,
}

impl Reach {
    pub(super) fn new(allowed: &[HostPattern], network: Arc<Network>) -> Reach {
        let places = Arc::new(Semaphore::new(network.connections_max.div_ceil(2)));
        Reach { allowed: allowed.to_owned(), network, places }
    }

    /// A place for a connection, among the function's and among those of all.
    fn place(&self) -> Result<Place, ReachError> {
        let take = |places: &Arc<Semaphore>| places.clone().try_acquire_owned().map_err(|_| ReachError::Full);
        Ok([take(&self.places)?, take(&self.network.places)?])
    }

    /// Whether the function names a host, before it is looked up.
    pub(super) fn names(&self, host: &str, port: u16) -> bool {
        self.allowed.iter().any(|pattern| pattern.matches(host, port))
    }

    fn check(&self, address: SocketAddr) -> Result<(), ReachError> {
        let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
        let guarded = is_metadata(plain.ip()) || self.is_own(plain);
        if guarded && !self.allowed.iter().any(|pattern| pattern.is_exactly(plain)) {
            return Err(ReachError::Guarded(address));
        }
        Ok(())
    }

    /// Whether this host listens there, under whatever of the machine's addresses.
    fn is_own(&self, address: SocketAddr) -> bool {
        self.network.listeners.iter().any(|listener| listener.port() == address.port()) && is_this_machine(address.ip())
    }
}

fn is_metadata(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    link_local || METADATA.contains(&address)
}

fn is_this_machine(address: IpAddr) -> bool {
    // Nothing else can be bound.
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

type Place = [OwnedSemaphorePermit; 2];

/// A connection, which has its place until it is closed.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TokioIo<TcpStream>,
    _place: Place,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Connection, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

/// Makes connections within a reach.
#[derive(Clone)]
pub(super) struct Connector(pub(super) Arc<Reach>);

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Connecting;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let reach = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let port = port_of(&uri);
            // A host that is an address is not looked up, so the resolver does not see it.
            if let Some(address) = host_pattern::literal(host) {
                reach.check(SocketAddr::new(address, port))?;
            }
            let place = reach.place()?;
            let mut connector = HttpConnector::new_with_resolver(Resolver { reach, port });
            connector.enforce_http(false);
            connector.set_nodelay(true);
            Ok(Connection { stream: connector.call(uri).await?, _place: place })
        })
    }
}

/// Whether a connection has carried a request.
#[derive(Clone, Debug, Default)]
struct Used(Arc<AtomicBool>);

impl Connection {
    /// Whether a connection that is about to carry a request has carried one before. Asked once for each request.
    pub(super) fn is_used(connected: &Connected) -> bool {
        let mut extensions = Extensions::new();
        connected.get_extras(&mut extensions);
        extensions.get::<Used>().is_some_and(|used| used.0.swap(true, Ordering::Relaxed))
    }
}

impl connect::Connection for Connection {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(Used::default())
    }
}

impl Read for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}

/// The port that a request goes to.
pub(super) fn port_of(uri: &Uri) -> u16 {
    let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}

/// Looks a name up for a connection to `port`, and leaves out the addresses that are guarded.
#[derive(Clone)]
struct Resolver {
    reach: Arc<Reach>,
    port: u16,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ReachError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ReachError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ReachError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Resolver { reach, port } = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), port)).await.map_err(ReachError::Unresolved)?;
            let (mut open, mut guarded) = (Vec::new(), None);
            for address in found {
                match reach.check(address) {
                    Ok(()) => open.push(address),
                    Err(error) => guarded = Some(error),
                }
            }
            match guarded {
                Some(error) if open.is_empty() => Err(error),
                Some(_) | None => Ok(open.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(allowed: &[&str]) -> Reach {
        let allowed: Vec<HostPattern> = allowed.iter().map(|pattern| pattern.parse().unwrap()).collect();
        let listeners = vec![([127, 0, 0, 1], 8080).into(), ([0, 0, 0, 0], 8081).into()];
        Reach::new(&allowed, Arc::new(Network::new(listeners, 4)))
    }

    #[test]
    fn one_function_has_half_of_all_connections() {
        let network = Arc::new(Network::new(Vec::new(), 3));
        let [one, other] = [(), ()].map(|()| Reach::new(&[], network.clone()));
        let held = [one.place().unwrap(), one.place().unwrap()];
        assert!(one.place().is_err(), "half of three is two");
        let last = other.place().unwrap();
        assert!(other.place().is_err(), "three are open");
        drop(held);
        assert!(other.place().is_ok() && one.place().is_ok());
        drop(last);
    }

    #[test]
    fn what_only_the_host_should_reach_is_guarded_in_every_form() {
        let reach = reach(&["*", "localhost", "example.com:8081"]);
        for guarded in [
            "127.0.0.1:8081",
            "127.9.9.9:8080",
            "0.0.0.0:8081",
            "[::1]:8081",
            "[::]:8080",
            "[::ffff:127.0.0.1]:8081",
            "[::ffff:0.0.0.0]:8081",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:80",
            "100.100.100.200:80",
            "[fd00:ec2::254]:80",
        ] {
            assert!(reach.check(guarded.parse().unwrap()).is_err(), "{guarded}");
        }
        for open in ["127.0.0.1:8082", "[::1]:80", "192.0.2.1:8081", "10.0.0.1:80"] {
            assert!(reach.check(open.parse().unwrap()).is_ok(), "{open}");
        }
    }

    #[test]
    fn naming_a_guarded_address_and_its_port_allows_it() {
        let check = |pattern: &str, address: &str| reach(&[pattern]).check(address.parse().unwrap()).is_ok();
        assert!(check("127.0.0.1:8081", "127.0.0.1:8081") && check("localhost:8081", "[::1]:8081"));
        assert!(check("169.254.169.254:80", "169.254.169.254:80") && check("[fe80::1]:80", "[fe80::1]:80"));
        assert!(!check("127.0.0.1", "127.0.0.1:8081"), "without a port it means the function's own servers");
        assert!(!check("127.0.0.1:8080", "127.0.0.1:8081") && !check("*:8081", "127.0.0.1:8081"));
        assert!(!check("localhost:80", "169.254.169.254:80"));
    }
}
