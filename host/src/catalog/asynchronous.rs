//! How asynchronous invocations of a function are run: what people write, and the checked form that the queue asks for.
//! They belong to the function as a whole, so a change holds at once for events that wait, and restarts no instance.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{AliasName, FunctionName, LATEST, VersionNumber};

const DAY_MS: u64 = 86_400_000;
/// Versions and aliases that may have rules of their own.
const QUALIFIERS_MAX: usize = 100;
const URL_BYTES_MAX: usize = 2048;

/// How asynchronous invocations are run. Everything that is left out has its default, or, under `qualifiers`, what the
/// function has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Async)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AsyncSpec {
    /// Attempts at an event, until the function succeeds: 1 to 100; by default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// An event that is older than this is not tried again, and one that waited so long not even once; in ms, 1000 to
    /// 2 592 000 000, which are 30 days; by default 21 600 000, which are 6 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_event_age_ms: Option<u64>,
    /// The wait before the second attempt, in ms: 1 to 86 400 000, by default 1000. Each further wait is twice as long. Half of
    /// each wait is drawn, so that many events do not come back at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_wait_ms: Option<u64>,
    /// The longest wait between attempts, in ms; by default 300 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_wait_max_ms: Option<u64>,
    /// Attempts that may run at once. By default half, and at most all but one, of the requests that all instances of the
    /// function can run at once, which are `maxInstances` times `concurrency`; always at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// Events that may wait at once: 1 to 100 000 000; by default 1 000 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queued: Option<u64>,
    /// Who is told when the function succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_success: Option<DestinationSpec>,
    /// Who is told when an event failed for good, or expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<DestinationSpec>,
    /// What is different for events that were sent to a version or an alias, by its name; `LATEST` can be one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(no_recursion)]
    pub qualifiers: BTreeMap<String, AsyncSpec>,
}

/// Who is told how an asynchronous invocation ended: either a function, which is invoked asynchronously, or a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Destination)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DestinationSpec {
    /// The function's name. It need not be there yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// A version or an alias of it; left out: `LATEST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<String>,
    /// An address of `http` or `https` that gets a signed POST. Its host must be among `allowedOutboundHosts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How long the URL may take to answer, in ms: 100 to 60 000; by default 10 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Attempts at the URL, until it answers with a status from 200 to 299: 1 to 100; by default 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
}

/// Checked rules for the events of one qualifier.
#[derive(Clone, Debug)]
pub struct AsyncRules {
    /// Attempts in all.
    pub attempts_max: u32,
    /// Events older than this expire.
    pub age_max: Duration,
    /// The first and the longest wait between attempts.
    pub retry_wait: RangeInclusive<Duration>,
    /// Attempts at once, if it is set.
    pub concurrency: Option<u32>,
    /// Events that may wait.
    pub queued_max: u64,
}

/// Who is told how an asynchronous invocation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A function, and the qualifier if there is one.
    Function(FunctionName, Option<String>),
    /// An address, the longest time for an answer, and the most attempts.
    Url(String, Duration, u32),
}

impl AsyncSpec {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == AsyncSpec::default()
    }

    /// The rules for events that were sent to `qualifier`.
    pub fn rules(&self, qualifier: &str) -> AsyncRules {
        let own = self.qualifiers.get(qualifier);
        let number = |field: fn(&AsyncSpec) -> Option<u64>, default| {
            own.and_then(field).or_else(|| field(self)).unwrap_or(default)
        };
        let ms = |field, default| Duration::from_millis(number(field, default));
        let (first, longest) = (ms(|spec| spec.retry_wait_ms, 1000), ms(|spec| spec.retry_wait_max_ms, 300_000));
        AsyncRules {
            attempts_max: number(|spec| spec.max_attempts.map(u64::from), 3) as u32,
            age_max: ms(|spec| spec.max_event_age_ms, 21_600_000),
            retry_wait: first..=longest.max(first),
            concurrency: own.and_then(|own| own.max_concurrency).or(self.max_concurrency),
            queued_max: number(|spec| spec.max_queued, 1_000_000),
        }
    }

    /// Who is told how an event ended that was sent to `qualifier`.
    pub fn destination(&self, qualifier: &str, succeeded: bool) -> Option<Destination> {
        let of = |spec: &AsyncSpec| if succeeded { spec.on_success.clone() } else { spec.on_failure.clone() };
        let spec = self.qualifiers.get(qualifier).and_then(of).or_else(|| of(self))?;
        spec.check().ok()
    }

    /// Says what is wrong.
    pub(super) fn check(&self, allowed: impl Fn(&str, u16) -> bool, faults: &mut Vec<String>) {
        self.check_values("async", &allowed, faults);
        if self.qualifiers.len() > QUALIFIERS_MAX {
            faults.push(format!("`async.qualifiers` has more than {QUALIFIERS_MAX} entries"));
        }
        for (qualifier, own) in &self.qualifiers {
            let name: String = qualifier.chars().take(128).collect();
            let at = format!("async.qualifiers.{name}");
            let known = qualifier == LATEST
                || qualifier.parse::<AliasName>().is_ok()
                || qualifier.parse::<VersionNumber>().is_ok();
            if !known {
                faults.push(format!("`{at}`: `{name}` is neither a version, an alias nor `LATEST`"));
            }
            if !own.qualifiers.is_empty() {
                faults.push(format!("`{at}` has `qualifiers` of its own, which it cannot"));
            }
            own.check_values(&at, &allowed, faults);
        }
    }

    fn check_values(&self, at: &str, allowed: &impl Fn(&str, u16) -> bool, faults: &mut Vec<String>) {
        let mut range = |name: &str, value: Option<u64>, least: u64, most: u64| {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                faults.push(format!("`{at}.{name}` is {value}; it must be {least} to {most}"));
            }
        };
        range("maxAttempts", self.max_attempts.map(u64::from), 1, 100);
        range("maxEventAgeMs", self.max_event_age_ms, 1000, 30 * DAY_MS);
        range("retryWaitMs", self.retry_wait_ms, 1, DAY_MS);
        range("retryWaitMaxMs", self.retry_wait_max_ms, 1, DAY_MS);
        range("maxConcurrency", self.max_concurrency.map(u64::from), 1, 100_000);
        range("maxQueued", self.max_queued, 1, 100_000_000);
        for (name, destination) in [("onSuccess", &self.on_success), ("onFailure", &self.on_failure)] {
            let Some(destination) = destination else { continue };
            match destination.check() {
                Ok(Destination::Function(..)) => {}
                Ok(Destination::Url(url, ..)) => {
                    if let Some((host, port)) = host_and_port(&url).filter(|(host, port)| !allowed(host, *port)) {
                        faults
                            .push(format!("`{at}.{name}.url`: {host}:{port} is not in `allowedOutboundHosts`; add it"));
                    }
                }
                Err(fault) => faults.push(format!("`{at}.{name}`: {fault}")),
            }
        }
    }
}

impl DestinationSpec {
    /// The checked form, or what is wrong.
    fn check(&self) -> Result<Destination, String> {
        let DestinationSpec { function, qualifier, url, timeout_ms, max_attempts } = self;
        let (timeout_ms, attempts) = (timeout_ms.unwrap_or(10_000), max_attempts.unwrap_or(8));
        if !(100..=60_000).contains(&timeout_ms) {
            return Err(format!("`timeoutMs` is {timeout_ms}; it must be 100 to 60000"));
        }
        if !(1..=100).contains(&attempts) {
            return Err(format!("`maxAttempts` is {attempts}; it must be 1 to 100"));
        }
        match (function, url) {
            (Some(function), None) => {
                let function = function.parse::<FunctionName>().map_err(|error| error.to_string())?;
                Ok(Destination::Function(function, qualifier.clone().filter(|qualifier| qualifier != LATEST)))
            }
            (None, Some(_)) if qualifier.is_some() => Err("`qualifier` belongs to `function`; leave it out".to_owned()),
            (None, Some(url)) => match host_and_port(url) {
                Some(_) if url.len() <= URL_BYTES_MAX => {
                    Ok(Destination::Url(url.clone(), Duration::from_millis(timeout_ms), attempts))
                }
                Some(_) | None => Err(format!(
                    "`url` must be an address such as `https://example.com/done`, without a user or a password and of at most \
                     {URL_BYTES_MAX} bytes"
                )),
            },
            (Some(_), Some(_)) => {
                Err("it has both `function` and `url`; set one of them to null, or leave it out".to_owned())
            }
            (None, None) => Err("it needs `function` or `url`".to_owned()),
        }
    }
}

/// Where an address leads; none: it is no address of HTTP.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let default = match uri.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some((authority.host().to_owned(), authority.port_u16().unwrap_or(default)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: serde_json::Value) -> AsyncSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_qualifier_has_its_own_rules_and_else_those_of_the_function() {
        let spec = spec(json!({
            "maxAttempts": 5, "retryWaitMs": 10, "onFailure": {"function": "alarm", "qualifier": "LATEST"},
            "qualifiers": {"prod": {"maxAttempts": 7, "onSuccess": {"url": "https://example.com/x"}}},
        }));
        let (latest, prod) = (spec.rules("LATEST"), spec.rules("prod"));
        assert_eq!((latest.attempts_max, prod.attempts_max), (5, 7));
        let alarm = Some(Destination::Function("alarm".parse().unwrap(), None));
        let on_failure = ["LATEST", "prod"].map(|qualifier| spec.destination(qualifier, false));
        assert_eq!(on_failure, [alarm.clone(), alarm]);
        assert_eq!(spec.destination("LATEST", true), None);
        assert_eq!(
            spec.destination("prod", true),
            Some(Destination::Url("https://example.com/x".to_owned(), Duration::from_secs(10), 8))
        );
        assert_eq!(prod.retry_wait, Duration::from_millis(10)..=Duration::from_secs(300));
        assert_eq!(prod.age_max, Duration::from_secs(6 * 3600));
    }

    #[test]
    fn every_fault_is_named() {
        let spec = spec(json!({
            "maxAttempts": 0, "maxQueued": 0, "onSuccess": {}, "onFailure": {"url": "https://elsewhere/x"},
            "qualifiers": {"not a name": {}, "prod": {
                "retryWaitMs": 0, "qualifiers": {"x": {}}, "onSuccess": {"url": "ftp://x"}, "onFailure": {"function": "1"},
            }},
        }));
        let mut faults = Vec::new();
        spec.check(|host, port| (host, port) != ("elsewhere", 443), &mut faults);
        let text = faults.join("\n");
        for part in [
            "`async.maxAttempts` is 0; it must be 1 to 100",
            "`async.maxQueued` is 0",
            "`async.onSuccess`: it needs `function` or `url`",
            "`async.onFailure.url`: elsewhere:443 is not in `allowedOutboundHosts`; add it",
            "`not a name` is neither a version, an alias nor `LATEST`",
            "`async.qualifiers.prod.retryWaitMs` is 0",
            "`async.qualifiers.prod` has `qualifiers` of its own",
            "`async.qualifiers.prod.onSuccess`: `url` must be an address",
            "`async.qualifiers.prod.onFailure`: `1` is not a function name",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert_eq!(faults.len(), 9, "{text}");
    }
}
