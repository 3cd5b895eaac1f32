//! A reply of either plane, read whole.

use std::fmt;

use serde_json::Value;

/// Status, header fields and body.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) async fn of(response: reqwest::Response) -> Reply {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.bytes().await.expect("a whole body").to_vec();
        Reply { status, headers, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The `results` of the probe's reply to a script.
    pub(crate) fn results(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["results"].clone()
    }

    /// The `state` of the probe's reply to a script.
    pub(crate) fn state(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["state"].clone()
    }

    /// A header field as text; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `Dormouse-Start`.
    pub(crate) fn start(&self) -> &str {
        self.header("dormouse-start")
    }

    /// A duration of `Server-Timing`, in ms.
    pub(crate) fn timing(&self, name: &str) -> f64 {
        let field = self.header("server-timing");
        let entry = field.split(", ").find_map(|entry| entry.strip_prefix(name)?.strip_prefix(";dur="));
        entry.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("no {name} in {field:?}"))
    }

    /// Checks that this is a problem with this status and code, and returns its detail.
    pub(crate) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["requestId"], self.header("dormouse-request-id"));
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let shown: String = text.chars().take(600).collect();
        write!(f, "{} {:?} {shown}", self.status, self.headers)
    }
}
