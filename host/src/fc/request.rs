//! A request as the operations see it, and what they answer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use serde_json::{Map, Value};

use super::api::{Api, Names, Op};
use super::fault::Fault;
use super::input::Fields;
use crate::access::Right;
use crate::guest::Body;
use crate::ids::{FunctionName, LATEST, RequestId};
use crate::operator::Operator;

const LIMIT: usize = 20;
const LIMIT_MAX: usize = 100;

/// A request.
pub(super) struct Asked {
    pub(super) api: Api,
    pub(super) op: Op,
    pub(super) names: Names,
    /// Whether it changes something.
    pub(super) is_change: bool,
    pub(super) query: Vec<(String, String)>,
    pub(super) fields: HeaderMap,
    pub(super) json: Map<String, Value>,
    pub(super) operator: Operator,
    pub(super) id: RequestId,
    /// The address at which the client reached the listener, as it wrote it.
    pub(super) host: String,
    /// The address at which it reaches functions.
    pub(super) data: String,
}

/// The function that a request is about.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The service, in the APIs that have them.
    pub(super) service: Option<String>,
    /// The name on this host.
    pub(super) name: FunctionName,
    /// A version or an alias; none: `LATEST`.
    pub(super) qualifier: Option<String>,
}

impl Target {
    pub(super) fn shown_qualifier(&self) -> String {
        self.qualifier.as_deref().unwrap_or(LATEST).chars().take(128).collect()
    }
}

impl Asked {
    pub(super) fn body(&self) -> Fields<'_> {
        Fields::of(&self.json)
    }

    /// The value of a query's parameter.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The service that a path names, and its qualifier.
    pub(super) fn service_target(&self) -> Result<Option<(String, Option<String>)>, Fault> {
        let Some(text) = &self.names.service else { return Ok(None) };
        let own = self.param("qualifier").map(str::to_owned);
        let (service, qualifier) = match text.split_once('.') {
            Some((service, qualifier)) if self.api == Api::V2016 => (service, Some(qualifier.to_owned())),
            _ => (text.as_str(), own),
        };
        check_service(service)?;
        Ok(Some((service.to_owned(), qualifier)))
    }

    /// The name of the service that a path names.
    pub(super) fn service(&self) -> Result<String, Fault> {
        let named = self.service_target()?.map(|(service, _)| service);
        named.ok_or_else(|| Fault::invalid("the path names no service"))
    }

    /// The function that a path names.
    pub(super) fn target(&self) -> Result<Target, Fault> {
        let own = self.names.function.as_deref().ok_or_else(|| Fault::invalid("the path names no function"))?;
        self.target_of(own)
    }

    /// The function of that name, in the service that the path names.
    pub(super) fn target_of(&self, own: &str) -> Result<Target, Fault> {
        let wrong = |error: crate::ids::InvalidName| Fault::invalid(error.to_string());
        match self.service_target()? {
            Some((service, qualifier)) => {
                let name = FunctionName::of_service(&service, own).map_err(wrong)?;
                Ok(Target { service: Some(service), name, qualifier })
            }
            None => {
                let name: FunctionName = own.parse().map_err(wrong)?;
                if let (Some(service), _) = name.parts() {
                    let message = format!(
                        "function '{name}' is one of service '{service}'; ask for it with the API 2016-08-15 or 2021-04-06"
                    );
                    return Err(Fault::invalid(message));
                }
                Ok(Target { service: None, name, qualifier: self.param("qualifier").map(str::to_owned) })
            }
        }
    }

    /// What a path names below the function or service.
    pub(super) fn item(&self) -> &str {
        self.names.item.as_deref().unwrap_or_default()
    }

    /// Refuses what whoever asks may not do with a function.
    pub(super) fn check(&self, right: Right, function: &str) -> Result<(), Fault> {
        Ok(self.operator.check(right, function)?)
    }

    /// Refuses a change of what has changed since the client read it.
    pub(super) fn check_match(&self, etag: &str) -> Result<(), Fault> {
        let wanted = self.fields.get(header::IF_MATCH).and_then(|value| value.to_str().ok());
        match wanted.map(|wanted| wanted.trim_start_matches("W/").trim_matches('"')) {
            None | Some("" | "*") => Ok(()),
            Some(wanted) if wanted == etag => Ok(()),
            Some(_) => Err(Fault::unmet("PreconditionFailed", "the resource being modified has been changed")),
        }
    }

    /// A field of the request as text.
    pub(super) fn field(&self, name: &HeaderName) -> Option<&str> {
        self.fields.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Services have names as functions have.
pub(super) fn check_service(name: &str) -> Result<(), Fault> {
    let checked: Result<FunctionName, _> = name.parse();
    if checked.is_ok_and(|name| name.parts().0.is_none()) {
        return Ok(());
    }
    let shown: String = name.chars().take(129).collect();
    Err(Fault::invalid(format!(
        "'{shown}' is not a service's name: 1 to 128 letters, digits, `_` or `-`, starting with a letter or `_`"
    )))
}

/// What an operation answers.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) body: Body,
}

impl Reply {
    pub(super) fn json(value: Value) -> Reply {
        let mut reply = Reply::bytes(value.to_string().into());
        reply.fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        reply
    }

    pub(super) fn bytes(bytes: Bytes) -> Reply {
        Reply { status: StatusCode::OK, fields: HeaderMap::new(), body: whole(bytes) }
    }

    /// Success, and nothing to say.
    pub(super) fn nothing() -> Reply {
        Reply { status: StatusCode::NO_CONTENT, ..Reply::bytes(Bytes::new()) }
    }

    /// Names what it shows as it is now, for `If-Match`.
    pub(super) fn with_etag(mut self, etag: &str) -> Reply {
        self.fields.extend(HeaderValue::from_str(etag).ok().map(|etag| (header::ETAG, etag)));
        self
    }

    pub(super) fn with(mut self, fields: HeaderMap) -> Reply {
        self.fields.extend(fields);
        self
    }
}

pub(super) fn whole(bytes: Bytes) -> Body {
    Full::from(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A page of a list: items with the names that they are ordered by.
pub(super) fn page(asked: &Asked, plural: &str, items: Vec<(String, Value)>) -> Result<Reply, Fault> {
    page_by(asked, plural, items, asked.param("prefix").unwrap_or_default())
}

/// The same, of those whose names begin so.
pub(super) fn page_by(
    asked: &Asked,
    plural: &str,
    mut items: Vec<(String, Value)>,
    prefix: &str,
) -> Result<Reply, Fault> {
    let limit = match asked.param("limit") {
        None => LIMIT,
        Some(text) => text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            Fault::invalid(format!("`limit` is {shown}; it must be a whole number, 1 to {LIMIT_MAX}"))
        })?,
    };
    let token = asked.param("nextToken").map(|token| {
        let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|name| String::from_utf8(name).ok());
        name.ok_or_else(|| Fault::invalid("`nextToken` is not one that this host gave"))
    });
    let from = token.transpose()?.or_else(|| asked.param("startKey").map(str::to_owned));
    items.retain(|(name, _)| name.starts_with(prefix) && from.as_ref().is_none_or(|from| name >= from));
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    let next = items.get(limit).map(|(name, _)| URL_SAFE_NO_PAD.encode(name));
    items.truncate(limit);
    let values: Vec<Value> = items.into_iter().map(|(_, value)| value).collect();
    let mut answer = Map::new();
    answer.insert(plural.to_owned(), values.into());
    answer.extend(next.map(|next| ("nextToken".to_owned(), next.into())));
    Ok(Reply::json(Value::Object(answer)))
}
