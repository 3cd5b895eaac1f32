//! Sending to addresses: how an invocation ended, signed as Standard Webhooks 1.0.0 says, so that the receiver can check
//! who sent it and needs no code of ours to do so.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ring::hmac;

use super::invocation::Claimed;
use super::policy::Ended;
use crate::clock;
use crate::host::Host;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What became of a delivery.
pub(super) struct Delivered {
    pub(super) ended: Ended,
    pub(super) code: &'static str,
    pub(super) detail: String,
    pub(super) status: Option<u16>,
    pub(super) body: Bytes,
}

/// Sends an invocation's event to an address. Its identifier is the same at each attempt.
pub(super) async fn send(host: &Host, claimed: &Claimed, url: &str) -> Delivered {
    let delivered = |ended, code, detail: String| Delivered { ended, code, detail, status: None, body: Bytes::new() };
    let name = claimed.lane.function.as_str();
    let Some(function) = host.function(name) else {
        return delivered(Ended::Hopeless, "function-not-found", format!("there is no function `{name}`"));
    };
    let Some(sending) = claimed.origin.sending else {
        return delivered(Ended::Hopeless, "internal", "it is not said how it is sent".to_owned());
    };
    let limit = Duration::from_millis(sending.timeout_ms);
    let secret = host.access().webhook_secret(name);
    let fields = signed(&secret, claimed.id.as_str(), &claimed.event);
    match host.sender(&function).post(url, fields, claimed.event.clone(), limit).await {
        Ok(sent) if (200..300).contains(&sent.status) => {
            Delivered { status: Some(sent.status), body: sent.body, ..delivered(Ended::Well, "ok", String::new()) }
        }
        Ok(sent) => {
            // 410: the receiver is gone, and says so.
            let ended = if sent.status == 410 { Ended::Hopeless } else { Ended::Badly };
            let detail = format!("{url} answered {}", sent.status);
            Delivered { status: Some(sent.status), body: sent.body, ..delivered(ended, "destination-failed", detail) }
        }
        Err(error) => delivered(Ended::Badly, "destination-failed", format!("{url}: {error}")),
    }
}

/// The secret as receivers have it.
pub(super) fn shown(secret: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

fn signed(secret: &[u8], id: &str, body: &[u8]) -> HeaderMap {
    let timestamp = clock::date().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let signature = signature(secret, id, timestamp, body);
    let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"));
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ID, text(id)),
        (TIMESTAMP, HeaderValue::from(timestamp)),
        (SIGNATURE, text(&signature)),
    ])
}

fn signature(secret: &[u8], id: &str, timestamp: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut signing = hmac::Context::with_key(&key);
    signing.update(format!("{id}.{timestamp}.").as_bytes());
    signing.update(body);
    format!("v1,{}", STANDARD.encode(signing.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature(&secret, id, 1_614_265_330, body), expected);
    }
}
