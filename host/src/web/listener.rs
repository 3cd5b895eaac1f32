//! Connections: accepted up to a bound, closed in order. Both planes use it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::connection::{self, Plane};
use super::service::Service;
use super::tls::Tls;
use crate::config::ConnectionBounds;
use crate::shutdown::Tasks;

/// How long to wait after `accept` failed, for lack of files for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a client gets that has too many connections.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves connections until the host closes. Beyond the bound, clients wait in the kernel's queue; a client address that
/// has too many of them is refused, so that others need not wait for it.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    service: impl Service,
    bounds: ConnectionBounds,
    tasks: Tasks,
) {
    let (proxies, per_client_max) = (bounds.proxies.clone(), bounds.per_client_max);
    let places = Arc::new(Semaphore::new(bounds.connections_max));
    let plane = Arc::new(Plane { service, tls, bounds, tasks: tasks.clone() });
    let clients = Clients::default();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = tasks.closing() => return,
        };
        match accepted {
            Ok((stream, address, place)) => {
                // Behind a proxy are many.
                let share = if proxies.has(address.to_canonical()) { usize::MAX } else { per_client_max };
                let Some(entered) = clients.enter(address, share) else {
                    // As far as it fits into the kernel's buffer, which is empty. With TLS there is nothing to be said
                    // before a handshake, which is what shall be saved.
                    if plane.tls.is_none() {
                        let _ = stream.try_write(TOO_MANY);
                    }
                    tracing::debug!(client = %address, "refused a connection: the client has its share");
                    continue;
                };
                let plane = plane.clone();
                tasks.spawn(async move {
                    connection::serve(stream, address, plane).await;
                    drop((place, entered));
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    // Replies are small and whole; waiting to fill a segment would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream, address.ip(), place))
}

/// Connections by client address; cheap to clone.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection of a client; counted until it is dropped.
struct Entered {
    clients: Clients,
    address: IpAddr,
}

impl Clients {
    /// Another connection of the client, unless it has `most` of them.
    fn enter(&self, address: IpAddr, most: usize) -> Option<Entered> {
        let address = network_of(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Entered { clients: self.clone(), address })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// The address as one client has it: of version 6, a client has a whole network of 64 bits.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => (u128::from(address) >> 64 << 64).to_be_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_share() {
        let clients = Clients::default();
        let enter = |address: &str| clients.enter(address.parse().unwrap(), 2);
        let first = enter("10.0.0.1");
        let _second = enter("::ffff:10.0.0.1").expect("the same one, in the form of version 6");
        assert!(first.is_some() && enter("10.0.0.1").is_none());
        let _other = enter("10.0.0.2").expect("another client");
        drop(first);
        assert!(enter("10.0.0.1").is_some());
        let _network = [enter("2001:db8::1"), enter("2001:db8::2")].map(|entered| entered.expect("two"));
        assert!(enter("2001:db8::ffff:3").is_none() && enter("2001:db8:0:1::1").is_some());
        assert_eq!(clients.0.lock().unwrap().len(), 3, "who left is forgotten");
    }
}
