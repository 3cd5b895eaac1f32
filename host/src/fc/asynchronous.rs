//! Asynchronous invocations: their rules, and where each stands.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Fc;
use super::fault::Fault;
use super::function::ARN;
use super::functions;
use super::input::{Fields, without_nulls};
use super::request::{Asked, Reply, Target, page, page_by};
use super::store::{Document, Kind};
use crate::catalog::{AsyncSpec, DestinationSpec, Function};
use crate::clock;
use crate::ids::{LATEST, RequestId};
use crate::queue::{Record, State, Wanted};

/// Invocations that are looked at for one page.
const LISTED_MAX: usize = 1000;

pub(super) async fn put(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let _changing = fc.changing.lock().await;
    let function = fc.function(&target)?;
    fc.revision(&function, &target)?;
    let qualifier = fc.qualifier(&target)?;
    let fields = asked.body();
    let mut after = function.spec();
    let rules = after.asynchronous.qualifiers.entry(qualifier.clone()).or_default();
    let warnings = apply(&fields, rules)?;
    let mut kept = Map::new();
    for name in ["statefulInvocation", "asyncTask"] {
        kept.extend(fields.boolean(name)?.map(|value| (name.to_owned(), value.into())));
    }
    if let Some(value) = fields.get("destinationConfig") {
        kept.insert("destinationConfig".to_owned(), without_nulls(value));
    }
    if !warnings.is_empty() {
        warnings.iter().for_each(|warning| tracing::warn!(function = %function.name, "{warning}"));
        kept.insert("warnings".to_owned(), warnings.into());
    }
    let patch = functions::patch(fc, asked, &function, &after)?;
    let function = fc.host.configure(target.name.clone(), patch).await?;
    let document = fc.store.put(Kind::Async, target.name.as_str(), &target.shown_qualifier(), &kept).await?;
    Ok(Reply::json(view(&function, (&target, &qualifier), &document)))
}

pub(super) fn get(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let function = fc.function(&target)?;
    let document = find(fc, &function, &target)?;
    Ok(Reply::json(view(&function, (&target, &fc.qualifier(&target)?), &document)))
}

pub(super) async fn delete(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let _changing = fc.changing.lock().await;
    let function = fc.function(&target)?;
    find(fc, &function, &target)?;
    let qualifier = fc.qualifier(&target)?;
    fc.host.configure(target.name.clone(), json!({"async": {"qualifiers": {&*qualifier: null}}})).await?;
    fc.store.remove(Kind::Async, target.name.as_str(), &target.shown_qualifier()).await?;
    Ok(Reply::nothing())
}

pub(super) fn list(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = match &asked.names.function {
        Some(_) => asked.target()?,
        None => {
            asked.target_of(asked.param("functionName").ok_or_else(|| Fault::invalid("`functionName` is missing"))?)?
        }
    };
    asked.check(crate::access::Right::Read, target.name.as_str())?;
    let function = fc.function(&target)?;
    let documents = fc.store.of(Kind::Async, function.name.as_str()).into_iter();
    let views = documents.filter(|document| document.created >= function.created).filter_map(|document| {
        let target = Target { qualifier: Some(document.name.clone()), ..target.clone() };
        let view = view(&function, (&target, &fc.qualifier(&target).ok()?), &document);
        Some((document.name.clone(), view))
    });
    page(asked, "configs", views.collect())
}

fn find(fc: &Fc, function: &Function, target: &Target) -> Result<Arc<Document>, Fault> {
    let document = fc.store.get(Kind::Async, function.name.as_str(), &target.shown_qualifier());
    document.filter(|document| document.created >= function.created).ok_or_else(|| {
        let message =
            format!("AsyncConfig for {}:{} does not exist", function.name.parts().1, target.shown_qualifier());
        Fault::not_found("AsyncConfigNotExists", message)
    })
}

/// Puts the fields of a request into the rules; says what has no effect.
pub(super) fn apply(fields: &Fields<'_>, rules: &mut AsyncSpec) -> Result<Vec<String>, Fault> {
    let age = fields.whole("maxAsyncEventAgeInSeconds", 1..=604_800)?;
    rules.max_event_age_ms = Some(age.unwrap_or(86_400) * 1000);
    let retries = fields.whole("maxAsyncRetryAttempts", 0..=8)?;
    rules.max_attempts = Some(u32::try_from(retries.unwrap_or(3)).unwrap_or(u32::MAX) + 1);
    (rules.on_success, rules.on_failure) = (None, None);
    let mut warnings = Vec::new();
    let Some(config) = fields.object("destinationConfig")? else { return Ok(warnings) };
    for (name, own) in [("onSuccess", &mut rules.on_success), ("onFailure", &mut rules.on_failure)] {
        let Some(given) = config.object(name)? else { continue };
        let Some(text) = given.text("destination")?.filter(|text| !text.is_empty()) else { continue };
        *own = destination(text);
        if own.is_none() {
            let shown: String = text.chars().take(128).collect();
            warnings.push(format!(
                "`destinationConfig.{name}` names {shown}, which this host cannot reach: it is kept and has no effect. A function's name \
                 (acs:fc:...) or an address of HTTP can be a destination"
            ));
        }
    }
    Ok(warnings)
}

/// A destination as Function Compute writes it, as one of this host: a function, or an address.
fn destination(text: &str) -> Option<DestinationSpec> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Some(DestinationSpec { url: Some(text.to_owned()), ..DestinationSpec::default() });
    }
    // acs:fc:region:account:services/s.qualifier/functions/f, or acs:fc:region:account:functions/f/qualifier
    let named = text.strip_prefix("acs:fc:")?.splitn(3, ':').nth(2)?;
    let parts: Vec<&str> = named.split('/').collect();
    let (function, qualifier) = match parts.as_slice() {
        ["services", service, "functions", function] => {
            let (service, qualifier) = service.split_once('.').map_or((*service, None), |(own, of)| (own, Some(of)));
            (format!("{service}.{function}"), qualifier)
        }
        ["functions", function] => ((*function).to_owned(), None),
        ["functions", function, qualifier] => ((*function).to_owned(), Some(*qualifier)),
        _ => return None,
    };
    let qualifier = qualifier.filter(|qualifier| *qualifier != LATEST).map(str::to_owned);
    Some(DestinationSpec { function: Some(function), qualifier, ..DestinationSpec::default() })
}

fn view(function: &Function, (target, qualifier): (&Target, &str), document: &Document) -> Value {
    let rules = function.asynchronous.qualifiers.get(qualifier).cloned().unwrap_or_default();
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let mut view = json!({
        "destinationConfig": {}, "createdTime": time(document.created), "lastModifiedTime": time(document.updated),
        "maxAsyncEventAgeInSeconds": rules.max_event_age_ms.unwrap_or(86_400_000) / 1000,
        "maxAsyncRetryAttempts": rules.max_attempts.unwrap_or(4).saturating_sub(1),
    });
    let own = function.name.parts().1;
    match &target.service {
        Some(service) => {
            view["service"] = service.clone().into();
            view["function"] = own.into();
            view["qualifier"] = target.shown_qualifier().into();
            view["statefulInvocation"] = false.into();
        }
        None => {
            view["functionArn"] = format!("{ARN}{own}/{}", target.shown_qualifier()).into();
            view["asyncTask"] = false.into();
        }
    }
    for (name, value) in document.value.as_object().into_iter().flatten() {
        view[name] = value.clone();
    }
    view
}

pub(super) async fn list_invocations(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let function = fc.function(&target)?;
    let state = asked.param("status").map(|text| {
        let known = |state: &&State| shown(**state).eq_ignore_ascii_case(text);
        State::ALL.iter().find(known).copied().ok_or_else(|| {
            let known: Vec<&str> = State::ALL.into_iter().map(shown).collect();
            Fault::invalid(format!("`status` must be one of: {}", known.join(", ")))
        })
    });
    let time = |name: &str| match asked.param(name).map(str::parse::<u64>) {
        None => Ok(None),
        Some(Ok(ms)) => Ok(Some(clock::from_microseconds(ms.saturating_mul(1000)))),
        Some(Err(_)) => Err(Fault::invalid(format!("`{name}` must be milliseconds since 1970"))),
    };
    let wanted = Wanted {
        function: function.name.clone(),
        state: state.transpose()?,
        from: time("startedTimeBegin")?,
        to: time("startedTimeEnd")?,
        replayed: true,
        before: None,
        limit: LISTED_MAX,
    };
    let is_oldest_first = asked.param("sortOrderByTime").is_some_and(|order| order.eq_ignore_ascii_case("asc"));
    let place = |seq: u64| format!("{:020}", if is_oldest_first { seq } else { u64::MAX - seq });
    let prefix = asked.param("prefix").unwrap_or_default();
    let mut views = Vec::new();
    for record in fc.queue.list(wanted).await? {
        if record.id.as_str().starts_with(prefix) {
            views.push((place(record.seq), invocation(&target, &record)));
        }
    }
    let plural = if asked.api.has_services() { "invocations" } else { "tasks" };
    // The prefix is one of identifiers, and was looked at.
    page_by(asked, plural, views, "")
}

pub(super) async fn get_invocation(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let function = fc.function(&target)?;
    let found = fc.queue.show(function.name.clone(), id(asked)?).await?;
    let (record, event, reply) = found.ok_or_else(|| no_invocation(asked))?;
    let mut view = invocation(&target, &record);
    let text = |bytes: Option<bytes::Bytes>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let payload = if asked.api.has_services() { "invocationPayload" } else { "taskPayload" };
    view[payload] = text(event).unwrap_or_default().into();
    view["returnPayload"] = text(reply).unwrap_or_default().into();
    Ok(Reply::json(view))
}

pub(super) async fn stop_invocation(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let function = fc.function(&asked.target()?)?;
    fc.queue.stop(function.name.clone(), id(asked)?).await?;
    Ok(Reply::nothing())
}

fn id(asked: &Asked) -> Result<RequestId, Fault> {
    RequestId::from_caller(asked.item()).ok_or_else(|| no_invocation(asked))
}

fn no_invocation(asked: &Asked) -> Fault {
    let shown: String = asked.item().chars().take(128).collect();
    let code = if asked.api.has_services() { "StatefulAsyncInvocationNotFound" } else { "AsyncTaskNotFound" };
    Fault::new(StatusCode::NOT_FOUND, code, format!("'{shown}' does not exist; it may have ended long ago"))
}

/// The state's name at Function Compute.
fn shown(state: State) -> &'static str {
    match state {
        State::Queued => "Enqueued",
        State::Running => "Running",
        State::WaitingToRetry => "Retrying",
        State::Succeeded => "Succeeded",
        State::Failed => "Failed",
        State::Expired => "Expired",
        State::Stopped => "Stopped",
    }
}

fn invocation(target: &Target, record: &Record) -> Value {
    let ms = clock::microseconds;
    let result = record.result.clone().unwrap_or_default();
    let ended = if record.state.has_ended() { ms(record.at) / 1000 } else { 0 };
    let began = if record.state == State::Running { ms(record.at) } else { result.began_us };
    let told = result.told.as_ref();
    let destination = match told {
        None => "",
        Some(told) if told.refused.is_some() => "Failed",
        Some(_) => "Succeeded",
    };
    let accepted = ms(record.accepted) / 1000;
    let mut events = vec![json!({"eventId": 1, "status": "Enqueued", "timestamp": accepted, "eventDetail": ""})];
    if record.state != State::Queued {
        let at = if ended > 0 { ended } else { began / 1000 };
        events
            .push(json!({"eventId": 2, "status": shown(record.state), "timestamp": at, "eventDetail": result.detail}));
    }
    let mut view = json!({
        "status": shown(record.state), "requestId": record.id.as_str(), "startedTime": accepted, "endTime": ended,
        "durationMs": result.ended_us.saturating_sub(result.began_us) / 1000,
        "alreadyRetriedTimes": record.attempts.saturating_sub(1), "destinationStatus": destination, "events": events,
        "qualifier": record.lane.qualifier.as_deref().unwrap_or(LATEST),
    });
    let own = target.name.parts().1;
    let (id, error) = match &target.service {
        Some(service) => {
            view["serviceName"] = service.clone().into();
            view["functionName"] = own.into();
            ("invocationId", "invocationErrorMessage")
        }
        None => {
            view["functionArn"] = format!("{ARN}{own}").into();
            ("taskId", "taskErrorMessage")
        }
    };
    view[id] = record.id.as_str().into();
    view[error] = result.detail.into();
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_functions_and_addresses() {
        let named = |text: &str| {
            let found = destination(text)?;
            Some((found.function.or(found.url)?, found.qualifier))
        };
        let own = |name: &str, qualifier: Option<&str>| Some((name.to_owned(), qualifier.map(str::to_owned)));
        assert_eq!(named("acs:fc:cn-hangzhou:123:services/s/functions/f"), own("s.f", None));
        assert_eq!(named("acs:fc:cn-hangzhou:123:services/s.prod/functions/f"), own("s.f", Some("prod")));
        assert_eq!(named("acs:fc:local:0:functions/f/LATEST"), own("f", None));
        assert_eq!(named("acs:fc:local:0:functions/f"), own("f", None));
        assert_eq!(named("https://example.com/x"), own("https://example.com/x", None));
        for foreign in ["acs:mns:cn-hangzhou:123:/queues/q/messages", "acs:fc:x", "", "f"] {
            assert_eq!(named(foreign), None, "{foreign}");
        }
    }
}
