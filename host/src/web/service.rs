//! What a plane does with requests, and whose they are.

use std::net::IpAddr;

use hyper::body::{Body, Bytes, Incoming};

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
    /// Where it comes from.
    pub address: IpAddr,
    /// Whether it showed a certificate that this plane takes.
    pub has_certificate: bool,
}
