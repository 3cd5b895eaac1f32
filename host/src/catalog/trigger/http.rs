//! Addresses of a function's own: a host name and a path, who may call, and which web pages may.

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Auth;
use crate::ids::FunctionName;

/// Of the APIs with services, and of the one without.
const PROXIES: [&str; 2] = ["/2016-08-15/proxy/", "/2023-03-30/proxy/"];
const PATH_BYTES_MAX: usize = 1024;
const LIST_MAX: usize = 100;
/// A day.
const MAX_AGE_MAX: u32 = 86_400;

/// An address of a function's own, beside `/fn/{function}/...`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpTriggerSpec {
    /// The host name that callers ask for, without a port: `site.example.com`; left out: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path, `/login`, or all that begin with one, `/api/*`; by default `/*`. The function sees it whole, unless
    /// `stripPath` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether the function sees only what comes after `path`: with `/api/*`, a request for `/api/login` is one for `/login`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strip_path: bool,
    /// The methods that are let through; by default all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What callers must show here: `none` or `key`; left out: as everywhere else for the function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Which web pages of other origins may call it; left out: none, unless the function answers for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsSpec>,
}

/// Which web pages of other origins may call a function (the Fetch standard, section 3.3). The host answers preflights itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CorsSpec {
    /// Origins such as `https://example.com`, or `*` for all.
    pub origins: Vec<String>,
    /// The methods that pages may use; by default those of the trigger, or GET, HEAD, POST, PUT, PATCH and DELETE.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The fields that pages may send beside the usual ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// The fields of replies that pages may read beside the usual ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// Whether pages may send cookies and keys; not together with the origin `*`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    /// How long browsers may remember a preflight, in seconds: at most 86 400; by default 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
}

/// A checked address.
#[derive(Clone, Debug)]
pub struct HttpTrigger {
    /// The host name in lower case; none: any.
    pub host: Option<String>,
    /// The path, without the `*`.
    pub path: String,
    /// Whether longer paths are meant as well.
    pub is_prefix: bool,
    /// Whether the function sees only what comes after that.
    pub strips: bool,
    /// The methods; none: all.
    pub methods: Vec<Method>,
    /// What callers must show; none: as everywhere else for the function.
    pub auth: Option<Auth>,
    /// Which web pages may call it.
    pub cors: Option<Cors>,
}

/// Checked rules for web pages, as they stand in fields.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Origins; none: all.
    pub origins: Option<Vec<HeaderValue>>,
    /// Methods.
    pub methods: HeaderValue,
    /// Fields of requests.
    pub headers: HeaderValue,
    /// Fields of replies.
    pub expose_headers: HeaderValue,
    /// Whether cookies and keys may be sent.
    pub credentials: bool,
    /// How long a preflight may be remembered, in seconds.
    pub max_age: HeaderValue,
}

/// Whether a path is one that belongs to a single function by its name, as Function Compute's clients call it.
pub fn is_proxy_path(path: &str) -> bool {
    PROXIES.iter().any(|proxy| path.starts_with(proxy))
}

/// The path that belongs to a function by its name.
pub fn proxy_path(function: &FunctionName) -> String {
    match function.parts() {
        (Some(service), own) => format!("{}{service}/{own}/", PROXIES[0]),
        (None, own) => format!("{}{own}/", PROXIES[1]),
    }
}

impl HttpTrigger {
    /// Whether it is an address that belongs to the function by its name, and to no other.
    pub fn is_own(&self, function: &FunctionName) -> bool {
        self.host.is_none() && self.is_prefix && self.path == proxy_path(function)
    }
}

impl HttpTriggerSpec {
    pub(super) fn check(&self) -> Result<HttpTrigger, Vec<String>> {
        let mut faults = Vec::new();
        let host = self.host.as_ref().map(|host| host.to_ascii_lowercase());
        let is_host = |host: &String| {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            !host.is_empty() && host.len() <= 253 && host.bytes().all(valid) && host.parse::<Authority>().is_ok()
        };
        if host.as_ref().is_some_and(|host| !is_host(host)) {
            faults.push("`http.host` must be a host name without a port, such as `site.example.com`".to_owned());
        }
        let path = self.path.as_deref().unwrap_or("/*");
        let (path, is_prefix) = path.strip_suffix('*').map_or((path, false), |prefix| (prefix, true));
        let plain = |path: &str| path.bytes().all(|byte| byte.is_ascii_graphic() && !b"*?#\\%".contains(&byte));
        if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || !plain(path) || (is_prefix && !path.ends_with('/'))
        {
            faults.push(
                "`http.path` must be a path such as `/login`, or `/api/*` for all that begin with `/api/`".to_owned(),
            );
        }
        if ["/invoke", "/fn"]
            .iter()
            .any(|own| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        {
            faults.push(
                "`http.path` cannot be below `/invoke` or `/fn`, where every function has its address already"
                    .to_owned(),
            );
        }
        if self.strip_path && !is_prefix {
            faults.push("`http.stripPath` needs a `path` that ends with `/*`".to_owned());
        }
        let methods = methods("http.methods", &self.methods, &mut faults);
        let cors = self.cors.as_ref().and_then(|cors| cors.check(&methods, &mut faults));
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(HttpTrigger {
            host,
            path: path.to_owned(),
            is_prefix,
            strips: self.strip_path,
            methods,
            auth: self.auth,
            cors,
        })
    }
}

impl HttpTrigger {
    /// Whether both are for the same requests.
    pub fn collides_with(&self, other: &HttpTrigger) -> bool {
        (&self.host, &self.path, self.is_prefix) == (&other.host, &other.path, other.is_prefix)
    }

    /// The address as it is written.
    pub fn address(&self) -> String {
        format!("{}{}{}", self.host.as_deref().unwrap_or_default(), self.path, if self.is_prefix { "*" } else { "" })
    }
}

impl CorsSpec {
    fn check(&self, of_trigger: &[Method], faults: &mut Vec<String>) -> Option<Cors> {
        let before = faults.len();
        let all = self.origins.iter().any(|origin| origin == "*");
        if self.origins.is_empty() || self.origins.len() > LIST_MAX || (all && self.origins.len() > 1) {
            faults.push(format!(
                "`http.cors.origins` must be `[\"*\"]`, or 1 to {LIST_MAX} origins such as `https://example.com`"
            ));
        }
        if all && self.credentials {
            faults.push("`http.cors.credentials` needs origins by name; with `*` browsers refuse it".to_owned());
        }
        let mut origins = Vec::new();
        for origin in self.origins.iter().filter(|origin| *origin != "*") {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let is_origin =
                rest.is_some_and(|rest| rest.parse::<Authority>().is_ok_and(|host| !host.as_str().contains('@')));
            match HeaderValue::from_str(origin) {
                Ok(value) if is_origin => origins.push(value),
                _ => {
                    let shown: String = origin.chars().take(128).collect();
                    faults.push(format!("`http.cors.origins`: `{shown}` is no origin such as `https://example.com`"));
                }
            }
        }
        let own = methods("http.cors.methods", &self.methods, faults);
        let usual = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let named = [&own[..], of_trigger, &usual].into_iter().find(|methods| !methods.is_empty()).unwrap_or_default();
        let named: Vec<&str> = named.iter().map(Method::as_str).collect();
        let headers = fields("http.cors.headers", &self.headers, faults);
        let expose_headers = fields("http.cors.exposeHeaders", &self.expose_headers, faults);
        let max_age = self.max_age_seconds.unwrap_or(600);
        if max_age > MAX_AGE_MAX {
            faults.push(format!("`http.cors.maxAgeSeconds` is {max_age}; it must be 0 to {MAX_AGE_MAX}"));
        }
        (faults.len() == before).then(|| Cors {
            origins: (!all).then_some(origins),
            methods: value(&named.join(", ")),
            headers,
            expose_headers,
            credentials: self.credentials,
            max_age: HeaderValue::from(max_age),
        })
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn methods(name: &str, methods: &[String], faults: &mut Vec<String>) -> Vec<Method> {
    if methods.len() > LIST_MAX {
        faults.push(format!("`{name}` has more than {LIST_MAX} entries"));
    }
    let parsed = methods
        .iter()
        .map(|method| method.parse::<Method>().ok().filter(|_| !method.bytes().any(|byte| byte.is_ascii_lowercase())));
    let parsed: Option<Vec<Method>> = parsed.collect();
    parsed.unwrap_or_else(|| {
        faults.push(format!("`{name}` must be names of methods in capital letters, such as `GET`"));
        Vec::new()
    })
}

fn fields(name: &str, fields: &[String], faults: &mut Vec<String>) -> HeaderValue {
    if fields.len() > LIST_MAX || fields.iter().any(|field| field.parse::<HeaderName>().is_err()) {
        faults.push(format!("`{name}` must be at most {LIST_MAX} names of header fields, such as `X-Trace`"));
    }
    value(&fields.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value) -> Result<HttpTrigger, Vec<String>> {
        serde_json::from_value::<HttpTriggerSpec>(spec).unwrap().check()
    }

    #[test]
    fn addresses_are_hosts_and_paths() {
        let all = check(json!({})).unwrap();
        assert_eq!((all.host, all.path.as_str(), all.is_prefix), (None, "/", true));
        let api = check(json!({"host": "Site.Example.com", "path": "/api/*", "methods": ["GET"]})).unwrap();
        assert_eq!(api.address(), "site.example.com/api/*");
        let login = check(json!({"path": "/login"})).unwrap();
        assert!(!login.is_prefix && !login.collides_with(&api) && login.collides_with(&login));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (spec, part) in [
            (json!({"host": "a:80"}), "without a port"),
            (json!({"host": ""}), "`http.host`"),
            (json!({"path": "login"}), "`http.path` must be"),
            (json!({"path": "/a*"}), "`http.path` must be"),
            (json!({"path": "/a/*/b"}), "`http.path` must be"),
            (json!({"path": "/a%20b"}), "`http.path` must be"),
            (json!({"path": "/fn/*"}), "cannot be below"),
            (json!({"path": "/invoke"}), "cannot be below"),
            (json!({"methods": ["get"]}), "capital letters"),
            (json!({"cors": {}}), "`http.cors.origins` must be"),
            (json!({"cors": {"origins": ["*", "https://x"]}}), "`http.cors.origins` must be"),
            (json!({"cors": {"origins": ["*"], "credentials": true}}), "browsers refuse it"),
            (json!({"cors": {"origins": ["x.com"]}}), "is no origin"),
            (json!({"cors": {"origins": ["https://x.com/"]}}), "is no origin"),
            (json!({"cors": {"origins": ["*"], "headers": ["a b"]}}), "`http.cors.headers` must be"),
            (json!({"cors": {"origins": ["*"], "maxAgeSeconds": 100_000}}), "maxAgeSeconds"),
        ] {
            let faults = check(spec.clone()).unwrap_err().join("; ");
            assert!(faults.contains(part), "{spec}: {faults}");
        }
    }
}
