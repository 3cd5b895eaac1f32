//! Who sends a request of Function Compute's APIs.
//!
//! Signatures are checked as soon as the host has access keys: identifier and secret of a key are the client's. A host
//! without keys lets programs of its own machine in whatever they sign with, as its other planes do.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use sha2::{Digest as _, Sha256};

use super::fault::Fault;
use super::signature::Signature;
use crate::access::{Access, BadKey, Key};
use crate::clock;
use crate::ids::KeyId;
use crate::operator::Operator;
use crate::operator::origin::check_origin;
use crate::web::headers;
use crate::web::service::Client;

/// How far the clocks of client and host may be apart, as at Function Compute.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(15 * 60);

/// What is known of a request before its body is read.
pub(super) struct Head<'a> {
    pub(super) uri: &'a Uri,
    pub(super) fields: &'a HeaderMap,
}

/// What was used once and is not taken again, for as long as its date would be.
///
/// Two sets, of which the older one is dropped when all in it are too old, so that nothing is searched.
pub(super) struct Nonces {
    sets: Mutex<Sets>,
    /// In each of the two.
    max: usize,
    /// What was signed before is not known here.
    started: SystemTime,
}

struct Sets {
    newer: HashSet<[u8; 16]>,
    older: HashSet<[u8; 16]>,
    since: SystemTime,
}

impl Nonces {
    pub(super) fn new(max: usize) -> Nonces {
        let sets = Sets { newer: HashSet::new(), older: HashSet::new(), since: clock::date() };
        // Dates are in whole seconds.
        let started = UNIX_EPOCH + Duration::from_secs(clock::microseconds(clock::date()) / 1_000_000);
        Nonces { sets: Mutex::new(sets), max, started }
    }

    /// Notes one; refuses it if it was used, or if there are too many.
    fn take(&self, key: KeyId, nonce: &str, now: SystemTime) -> Result<(), Fault> {
        let digest: [u8; 32] =
            Sha256::new().chain_update(key.as_u64().to_le_bytes()).chain_update(nonce).finalize().into();
        let digest: [u8; 16] = std::array::from_fn(|index| digest[index]);
        let mut sets = self.sets.lock().expect("no holder of this lock panics");
        // A date may be that far ahead as well as behind.
        if now.duration_since(sets.since).is_ok_and(|age| age > 2 * CLOCKS_APART_MAX) {
            sets.older = std::mem::take(&mut sets.newer);
            sets.since = now;
        }
        if sets.newer.contains(&digest) || sets.older.contains(&digest) {
            return Err(Fault::denied("the signature's nonce was used before; sign each request with another one"));
        }
        if sets.newer.len() >= self.max {
            let message = format!("more than {} signed requests came within half an hour (`fc-nonces-max`)", self.max);
            return Err(Fault::unavailable(message));
        }
        sets.newer.insert(digest);
        Ok(())
    }
}

/// The key that a request is signed with; none if it is not signed, or the host has no keys.
pub(super) fn signer(
    access: &Access,
    nonces: &Nonces,
    signature: Option<&Signature<'_>>,
) -> Result<Option<Arc<Key>>, Fault> {
    let Some(signature) = signature.filter(|_| access.has_keys()) else { return Ok(None) };
    let unknown = || {
        let shown: String = signature.key.chars().take(64).collect();
        Fault::new(StatusCode::FORBIDDEN, "InvalidAccessKeyID", format!("invalid access key ID '{shown}'"))
    };
    let id: KeyId = signature.key.parse().map_err(|_| unknown())?;
    let now = clock::date();
    let date = check_date(signature.date, now)?;
    let is_known = Cell::new(false);
    let key = access.check_signature(id, |secret| {
        is_known.set(true);
        signature.is_of(secret)
    });
    let key = key.map_err(|bad| match bad {
        BadKey::Unknown if is_known.get() => Fault::new(
            StatusCode::FORBIDDEN,
            "SignatureNotMatch",
            "the signature is not the one that this host calculates: the secret is wrong, or something changed the request on its way",
        ),
        BadKey::Unknown => unknown(),
        expired => expired.into(),
    })?;
    if let Some(nonce) = signature.nonce() {
        if date < nonces.started {
            return Err(Fault::denied("the request was signed before this host started; sign it again"));
        }
        nonces.take(id, nonce, now)?;
    }
    Ok(Some(key))
}

/// Refuses a date that is too far off. Of the two APIs one writes it as HTTP does, the other as RFC 3339.
fn check_date(text: &str, now: SystemTime) -> Result<SystemTime, Fault> {
    let date = httpdate::parse_http_date(text).ok().or_else(|| humantime::parse_rfc3339(text).ok());
    let apart = |date| now.duration_since(date).unwrap_or_else(|ahead| ahead.duration());
    if let Some(date) = date.filter(|date| apart(*date) <= CLOCKS_APART_MAX) {
        return Ok(date);
    }
    let (shown, now): (String, _) = (text.chars().take(64).collect(), humantime::format_rfc3339_seconds(now));
    Err(Fault::denied(format!("the date '{shown}' is more than 15 minutes off; here it is {now}")))
}

/// Who sends a request to the admin listener.
pub(super) fn operator(
    access: &Access,
    is_open: bool,
    (head, client): (&Head<'_>, &Client),
    signer: Option<Arc<Key>>,
) -> Result<Operator, Fault> {
    if let Some(key) = signer {
        return Ok(Operator::Key(key));
    }
    if let Some(token) = headers::bearer(head.fields)
        && let Some(key) = access.recognise(token)?
    {
        return Ok(Operator::Key(key));
    }
    if let Some(fingerprint) = client.certificate {
        return Ok(Operator::Certificate(fingerprint));
    }
    if is_open {
        return check_origin(head.uri, &sane_host(head.fields)).map(|()| Operator::Local).map_err(Fault::from);
    }
    let message = "sign the request: an access key of this host, made with `dormouse keys create`, has an identifier \
                   (dmk-...) and, behind the dot, a secret";
    Err(Fault::denied(message))
}

/// One published client sends an address as `Host` (`http://127.0.0.1:8081`) if that is what its endpoint is.
fn sane_host(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    let plain =
        fields.get(header::HOST).and_then(|host| host.to_str().ok()?.strip_prefix("http://")).map(str::to_owned);
    if let Some(Ok(host)) = plain.map(|host| HeaderValue::from_str(host.trim_end_matches('/'))) {
        fields.insert(header::HOST, host);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_taken_once_for_as_long_as_its_date_would_be() {
        let (nonces, one, other) = (Nonces::new(3), KeyId::random(), KeyId::random());
        let begun = clock::date();
        let take =
            |key, nonce, after| nonces.take(key, nonce, begun + Duration::from_secs(after)).map_err(|fault| fault.code);
        assert_eq!(take(one, "a", 0), Ok(()));
        assert_eq!(take(one, "a", 1), Err("AccessDenied"));
        assert_eq!(take(other, "a", 1), Ok(()));
        assert_eq!(take(one, "a", 1801), Err("AccessDenied"), "it is in the older set now");
        assert_eq!(take(one, "b", 1802), Ok(()));
        assert_eq!(take(one, "a", 3700), Ok(()));
        assert_eq!((take(one, "c", 3701), take(one, "d", 3702)), (Ok(()), Ok(())));
        assert_eq!(take(one, "e", 3703), Err("ResourceThrottled"));
    }

    #[test]
    fn a_date_may_be_a_quarter_of_an_hour_off() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_345_082); // Sun, 22 Nov 2026 10:58:02 GMT
        for (text, is_right) in [
            ("Sun, 22 Nov 2026 10:58:02 GMT", true),
            ("Sun, 22 Nov 2026 10:43:02 GMT", true),
            ("Sun, 22 Nov 2026 10:43:01 GMT", false),
            ("2026-11-22T11:13:02Z", true),
            ("2026-11-22T11:13:03Z", false),
            ("", false),
            ("yesterday", false),
        ] {
            assert_eq!(check_date(text, now).is_ok(), is_right, "{text}");
        }
    }

    #[test]
    fn an_address_as_host_is_taken_for_its_name() {
        let sane = |host: &str| {
            let fields = [(header::HOST, HeaderValue::from_str(host).unwrap())].into_iter().collect();
            sane_host(&fields)[header::HOST].to_str().unwrap().to_owned()
        };
        assert_eq!(sane("http://127.0.0.1:8081"), "127.0.0.1:8081");
        assert_eq!(sane("127.0.0.1"), "127.0.0.1");
        assert_eq!(sane("http://evil.example"), "evil.example");
    }
}
