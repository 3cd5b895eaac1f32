//! What the fields of a request say to the host: how it is framed, and how the caller wants to be served.

use http::{HeaderMap, HeaderValue, Version, header};

use super::route::invalid;
use crate::ids::RequestId;
use crate::web::headers;
use crate::web::problem::{Code, Failure};

/// What somebody in front of the host may have read in another way is refused (RFC 9112, sections 3.2 and 6.1).
pub(super) fn check_framing(version: Version, fields: &HeaderMap) -> Result<(), Failure> {
    let hosts = fields.get_all(header::HOST).iter().count();
    if hosts > 1 {
        return Err(invalid("the field `Host` is there more than once"));
    }
    if hosts == 0 && version == Version::HTTP_11 {
        return Err(invalid("the field `Host` is missing; HTTP/1.1 requires it"));
    }
    let named = fields.get_all(header::TRANSFER_ENCODING).iter();
    let codings = named.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let codings: Vec<&[u8]> = codings.filter(|coding| !coding.is_empty()).collect();
    if codings.len() > 1 || codings.iter().any(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(invalid("`Transfer-Encoding` must be `chunked`, once; the host decodes nothing else"));
    }
    Ok(())
}

/// Other protocols may be offered, and nobody need take them up. One who asks for a WebSocket expects nothing else.
pub(super) fn check_upgrade(fields: &HeaderMap) -> Result<(), Failure> {
    let offered = fields.get_all(header::UPGRADE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if offered.map(<[u8]>::trim_ascii).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket")) {
        let detail = "functions have no WebSockets; server-sent events or a stream in either direction may do instead";
        return Err(Failure::new(Code::UpgradeNotSupported, detail));
    }
    Ok(())
}

/// Reads the fields of Function Compute's callers as this host's own, where they are addressed to its compatible doors. Elsewhere they
/// would be ignored, and a caller would wait for what it meant to hand over.
pub(super) fn read_theirs(is_fc: bool, fields: &mut HeaderMap) -> Result<(), Failure> {
    for (theirs, ours) in [
        ("x-fc-invocation-type", headers::INVOCATION_TYPE),
        ("x-fc-stateful-async-invocation-id", headers::INVOCATION_ID),
    ] {
        let Some(value) = fields.remove(theirs) else { continue };
        if !is_fc {
            let detail = format!("`{theirs}` is for the addresses of Function Compute; here it is `{ours}`");
            return Err(invalid(&detail));
        }
        // They write `Sync` and `Async`.
        let value = if ours == headers::INVOCATION_TYPE { lower(&value) } else { value };
        if ours == headers::INVOCATION_TYPE && value != "sync" && value != "async" {
            return Err(invalid("`x-fc-invocation-type` must be `Sync` or `Async`"));
        }
        fields.insert(ours, value);
    }
    Ok(())
}

fn lower(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(&value.as_bytes().to_ascii_lowercase()).unwrap_or_else(|_| value.clone())
}

/// Whether the caller does not wait for the function. The field is meant for the host, so the function does not get it.
pub(super) fn is_asynchronous(fields: &mut HeaderMap) -> Result<bool, Failure> {
    match fields.remove(headers::INVOCATION_TYPE).as_ref().map(HeaderValue::as_bytes) {
        None | Some(b"sync") => Ok(false),
        Some(b"async") => Ok(true),
        Some(_) => Err(Failure::new(
            Code::InvocationTypeNotSupported,
            "`Dormouse-Invocation-Type` is `sync`, which it is without the field, or `async`",
        )),
    }
}

/// The identifier that the caller chose for an asynchronous invocation.
pub(super) fn invocation_id(fields: &mut HeaderMap) -> Result<Option<RequestId>, Failure> {
    let Some(value) = fields.remove(headers::INVOCATION_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(RequestId::from_caller);
    let detail = "`Dormouse-Invocation-Id` must be 1 to 128 letters, digits and `._:/+=@-`";
    id.map(Some).ok_or_else(|| invalid(detail))
}
