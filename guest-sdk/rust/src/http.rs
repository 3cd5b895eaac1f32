//! Requests to other services, over the host's `wasi:http`.
//!
//! Functions call this. Requests are allowed only to the function's `allowed-outbound-hosts`. The SDK adds no trace
//! context and no credentials. Errors name the host but not the path or the query: these may contain secrets, and an
//! error's text may reach a caller.
//!
//! ```
//! use std::time::Duration;
//! use dormouse_sdk::{Result, http};
//!
//! async fn order(item: &str) -> Result<u64> {
//!     let response = http::Request::post("https://shop.example/orders")
//!         .header("authorization", "Bearer secret")
//!         .json(&[item])?
//!         .timeout(Duration::from_secs(2))
//!         .send()
//!         .await?;
//!     if !response.is_success() {
//!         return Err(format!("the shop answered {}", response.status).into());
//!     }
//!     response.json()
//! }
//!
//! // Under `cargo test` a closure answers instead of the network.
//! use dormouse_sdk::testing;
//!
//! testing::answer_http(|request| {
//!     assert_eq!(request.body, br#"["tea"]"#);
//!     Ok(http::Response::new(201, "1042"))
//! });
//! assert_eq!(testing::block_on(order("tea")).unwrap(), 1042);
//! ```

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, platform};

/// Fetches a URL.
pub async fn get(url: impl Into<String>) -> Result<Response> {
    Request::get(url).send().await
}

/// Posts a body to a URL.
pub async fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Result<Response> {
    Request::post(url).body(body).send().await
}

/// A request to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The method, in capitals.
    pub method: String,
    /// The whole URL, `http` or `https`.
    pub url: String,
    /// Headers in the order they were added.
    pub headers: Vec<(String, String)>,
    /// The body; empty means none.
    pub body: Vec<u8>,
    /// How long to wait for the connection, for the first byte, and between two bytes; each wait has this timeout.
    pub timeout: Option<Duration>,
}

impl Request {
    /// A request of any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Request { method: method.into(), url: url.into(), headers: Vec::new(), body: Vec::new(), timeout: None }
    }

    /// A `GET` request.
    pub fn get(url: impl Into<String>) -> Self {
        Request::new("GET", url)
    }

    /// A `POST` request.
    pub fn post(url: impl Into<String>) -> Self {
        Request::new("POST", url)
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to a value as JSON, and sets the `content-type`.
    pub fn json(self, value: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(value)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Sets how long to wait for the connection, for the first byte, and between two bytes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the request and reads the whole response. A status such as 404 is a response, not an error.
    pub async fn send(self) -> Result<Response> {
        let target = Target::of(&self.url)?;
        platform::send(&self, &target)
            .await
            .map_err(|problem| Error::from(format!("{} {}: {problem}", self.method, target.authority)))
    }
}

/// A response, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// A response without headers, for [`testing::answer_http`](crate::testing::answer_http).
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Response { status, headers: Vec::new(), body: body.into() }
    }

    /// True if the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> Result<&str> {
        Ok(std::str::from_utf8(&self.body)?)
    }

    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// The parts of a URL that are needed to send a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) tls: bool,
    pub(crate) authority: &'a str,
    pub(crate) path_with_query: String,
}

impl Target<'_> {
    fn of(url: &str) -> Result<Target<'_>> {
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err("a URL must start with http:// or https://".into()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err("the URL names no host".into());
        }
        if authority.contains('@') {
            return Err("credentials belong into a header, not into the URL".into());
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Target { tls, authority, path_with_query: format!("{slash}{path}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::block_on;

    #[test]
    fn a_url_is_split_for_the_host() {
        let target = |tls, authority, path: &str| Target { tls, authority, path_with_query: path.into() };
        assert_eq!(Target::of("http://a").unwrap(), target(false, "a", "/"));
        assert_eq!(Target::of("https://a:1/b?c=d#e").unwrap(), target(true, "a:1", "/b?c=d"));
        assert_eq!(Target::of("http://[::1]:80?q=http://x").unwrap(), target(false, "[::1]:80", "/?q=http://x"));
        for wrong in ["a/b", "ftp://a", "http://", "http:///a", "http://user:password@a/"] {
            assert!(Target::of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_names_the_host_and_keeps_the_rest_to_itself() {
        let error = block_on(get("http://shop.example/orders?key=secret")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "GET shop.example: there is no host in a native test; answer with testing::answer_http"
        );
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let mut response = Response::new(200, "");
        response.headers.push(("Retry-After".into(), "3".into()));
        assert_eq!(response.header("retry-after"), Some("3"));
        assert_eq!(response.header("location"), None);
    }
}
