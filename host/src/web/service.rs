//! What a plane does with requests, and whose they are.

use std::fmt;
use std::net::IpAddr;

use hyper::body::{Body, Bytes, Incoming};
use sha2::{Digest as _, Sha256};

use crate::proxies::Hop;

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// The body of its replies.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + 'static;

    /// Answers one request of a client.
    fn answer(
        &self,
        request: http::Request<Incoming>,
        client: Client,
    ) -> impl Future<Output = http::Response<Self::Body>> + Send;
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Who asks: where the connection comes from or, behind a proxy that is believed, whom that names.
    pub address: IpAddr,
    /// How the request came.
    pub hop: Hop,
    /// The certificate that it showed and that this plane takes.
    pub certificate: Option<Fingerprint>,
}

/// Tells certificates apart: the first 64 bits of the SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Fingerprint {
        let digest: [u8; 32] = Sha256::digest(certificate).into();
        Fingerprint(u64::from_be_bytes(std::array::from_fn(|index| digest[index])))
    }
}

/// As `openssl x509 -fingerprint -sha256` begins, in lower case and without colons.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
