//! Triggers. Timers and HTTP triggers are triggers of this host; others are kept, and never fire.

use serde_json::{Map, Value, json};

use super::Fc;
use super::api::Api;
use super::domain;
use super::fault::Fault;
use super::function::ARN;
use super::functions;
use super::input::{Fields, parse_object, without_nulls};
use super::request::{Asked, Reply, Target, page};
use super::store::Kind;
use crate::access::Auth;
use crate::catalog::{
    Function, HttpTriggerSpec, TRIGGER_NAME_MAX, TimerSpec, TriggerSpec, is_trigger_name, proxy_path,
};
use crate::clock::microseconds;
use crate::ids::LATEST;

/// Kinds that never fire here.
const FOREIGN: [&str; 6] = ["oss", "log", "tablestore", "cdn_events", "mns_topic", "eventbridge"];
/// What a time zone stands behind in an expression.
const ZONE: &str = "CRON_TZ=";

pub(super) async fn create(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let fields = asked.body();
    let name = fields.required("triggerName")?.to_owned();
    if !is_trigger_name(&name) {
        let shown: String = name.chars().take(TRIGGER_NAME_MAX).collect();
        let message =
            format!("`triggerName` is {shown:?}; it must be 1 to {TRIGGER_NAME_MAX} letters, digits, `_` or `-`");
        return Err(Fault::invalid(message));
    }
    let kind = fields.required("triggerType")?.to_owned();
    let target = asked.target()?;
    let _changing = fc.changing.lock().await;
    let function = fc.function(&target)?;
    if find(fc, &function, &name).is_some() {
        return Err(Fault::exists("TriggerAlreadyExists", format!("trigger '{name}' already exists")));
    }
    let mut kept = Map::new();
    kept.insert("triggerType".to_owned(), kind.into());
    set(fc, asked, (&target, &name), kept).await
}

pub(super) async fn update(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let _changing = fc.changing.lock().await;
    let function = fc.function(&target)?;
    let name = asked.item().to_owned();
    let kept = find(fc, &function, &name).ok_or_else(|| no_trigger(&name))?;
    asked.check_match(&etag(&kept))?;
    set(fc, asked, (&target, &name), kept).await
}

pub(super) fn get(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let function = fc.function(&asked.target()?)?;
    let kept = find(fc, &function, asked.item()).ok_or_else(|| no_trigger(asked.item()))?;
    Ok(answer(asked, &function, asked.item(), &kept))
}

pub(super) fn list(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let function = fc.function(&asked.target()?)?;
    let mut names: Vec<String> = function.triggers.keys().filter(|name| !domain::is_route(name)).cloned().collect();
    names.extend(fc.store.of(Kind::Trigger, function.name.as_str()).into_iter().map(|document| document.name.clone()));
    names.sort_unstable();
    names.dedup();
    let views = names.into_iter().filter_map(|name| {
        let kept = find(fc, &function, &name)?;
        let view = view(asked, &function, &name, &kept);
        Some((name, view))
    });
    page(asked, "triggers", views.collect())
}

pub(super) async fn delete(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let (target, name) = (asked.target()?, asked.item());
    let _changing = fc.changing.lock().await;
    let function = fc.function(&target)?;
    let kept = find(fc, &function, name).ok_or_else(|| no_trigger(name))?;
    asked.check_match(&etag(&kept))?;
    if function.triggers.contains_key(name) {
        fc.host.configure(target.name.clone(), json!({"triggers": {name: null}})).await?;
    }
    fc.store.remove(Kind::Trigger, target.name.as_str(), name).await?;
    Ok(Reply::nothing())
}

fn no_trigger(name: &str) -> Fault {
    let shown: String = name.chars().take(128).collect();
    Fault::not_found("TriggerNotFound", format!("trigger '{shown}' does not exist"))
}

/// A trigger as its client wrote it; of one that `/v1` made, what the client would have written.
fn find(fc: &Fc, function: &Function, name: &str) -> Option<Map<String, Value>> {
    let document = fc.store.get(Kind::Trigger, function.name.as_str(), name);
    // One of a function of the same name that was deleted through `/v1` is not this one's.
    let document = document.filter(|document| document.created >= function.created);
    let own = function.triggers.get(name);
    let kept = document.as_ref().and_then(|document| document.value.as_object().cloned());
    match (kept, own) {
        (Some(mut kept), own) => {
            let foreign = kept.get("triggerType").and_then(Value::as_str).is_some_and(|kind| FOREIGN.contains(&kind));
            if own.is_none() && !foreign {
                return None;
            }
            let (created, updated) = document.map(|document| (document.created, document.updated))?;
            for (name, time) in [("createdTime", created), ("lastModifiedTime", updated)] {
                kept.insert(name.to_owned(), humantime::format_rfc3339_micros(time).to_string().into());
            }
            Some(kept)
        }
        (None, Some(own)) => Some(written(own)),
        (None, None) => None,
    }
}

/// What a client would have written for a trigger of `/v1`.
fn written(spec: &TriggerSpec) -> Map<String, Value> {
    let (kind, config) = match (&spec.timer, &spec.http) {
        (Some(timer), _) => {
            let every = timer.every_ms.map(|ms| format!("@every {}s", ms.div_ceil(1000)));
            let zone = timer.timezone.as_ref().map(|zone| format!("{ZONE}{zone} ")).unwrap_or_default();
            let cron = timer.cron.clone().or(every).unwrap_or_default();
            ("timer", json!({"cronExpression": zone + &cron, "payload": timer.payload, "enable": spec.is_enabled()}))
        }
        (None, Some(http)) => {
            let auth = if http.auth == Some(Auth::Key) { "function" } else { "anonymous" };
            ("http", json!({"authType": auth, "methods": http.methods}))
        }
        (None, None) => ("", json!({})),
    };
    let mut kept = Map::new();
    kept.insert("triggerType".to_owned(), kind.into());
    kept.insert("triggerConfig".to_owned(), config);
    kept.extend(spec.qualifier.clone().map(|qualifier| ("qualifier".to_owned(), qualifier.into())));
    kept
}

/// Makes a trigger what a request says; what that leaves out stays as it is in `kept`.
async fn set(
    fc: &Fc,
    asked: &Asked,
    (target, name): (&Target, &str),
    mut kept: Map<String, Value>,
) -> Result<Reply, Fault> {
    let fields = asked.body();
    for field in ["description", "qualifier", "sourceArn", "invocationRole"] {
        if let Some(text) = fields.text(field)? {
            kept.insert(field.to_owned(), text.into());
        }
    }
    if let Some(config) = config(&fields)? {
        kept.insert("triggerConfig".to_owned(), without_nulls(&Value::Object(config)));
    }
    kept.remove("createdTime");
    kept.remove("lastModifiedTime");
    let kind = kept.get("triggerType").and_then(Value::as_str).unwrap_or_default().to_owned();
    let function = fc.function(target)?;
    match spec(&kept, &kind, target)? {
        None => {
            tracing::warn!(function = %function.name, trigger = name, "triggers of type `{kind}` are kept and never fire")
        }
        Some(spec) => {
            let mut after = function.spec();
            after.triggers.insert(name.to_owned(), spec);
            let patch = functions::patch(fc, asked, &function, &after)?;
            fc.host.configure(target.name.clone(), patch).await?;
        }
    }
    fc.store.put(Kind::Trigger, target.name.as_str(), name, &kept).await?;
    let function = fc.function(target)?;
    let kept = find(fc, &function, name).ok_or_else(|| no_trigger(name))?;
    Ok(answer(asked, &function, name, &kept))
}

/// The configuration of a trigger: an object, or, from generated clients, the text of one.
fn config(fields: &Fields<'_>) -> Result<Option<Map<String, Value>>, Fault> {
    match fields.get("triggerConfig") {
        None => Ok(None),
        Some(Value::Object(config)) => Ok(Some(config.clone())),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => parse_object("`triggerConfig`", text.as_bytes()).map(Some),
        Some(_) => Err(Fault::invalid("`triggerConfig` must be an object, or the text of one")),
    }
}

/// The trigger of this host that is meant; none if there is no such kind.
pub(super) fn spec(kept: &Map<String, Value>, kind: &str, target: &Target) -> Result<Option<TriggerSpec>, Fault> {
    let empty = Map::new();
    let config = Fields::of(kept.get("triggerConfig").and_then(Value::as_object).unwrap_or(&empty));
    let qualifier = kept.get("qualifier").and_then(Value::as_str).filter(|own| !own.is_empty() && *own != LATEST);
    let mut spec = TriggerSpec { qualifier: qualifier.map(str::to_owned), ..TriggerSpec::default() };
    match kind {
        "timer" => {
            let (cron, timezone) = schedule(config.required("cronExpression")?);
            let payload = config.text("payload")?.unwrap_or_default().to_owned();
            spec.timer = Some(TimerSpec { cron: Some(cron), timezone, payload, ..TimerSpec::default() });
            spec.enabled = config.boolean("enable")?.filter(|enabled| !enabled);
        }
        "http" => {
            let auth = match config.text("authType")?.unwrap_or("function").to_ascii_lowercase().as_str() {
                "anonymous" => Auth::None,
                "function" => Auth::Key,
                other => {
                    let shown: String = other.chars().take(32).collect();
                    return Err(Fault::invalid(format!(
                        "`triggerConfig.authType` is '{shown}'; it must be `anonymous` or `function`"
                    )));
                }
            };
            let methods = config.list("methods")?.into_iter().flatten();
            let methods = methods.filter_map(|method| method.as_str().map(str::to_owned)).collect();
            let path = Some(format!("{}*", proxy_path(&target.name)));
            spec.http = Some(HttpTriggerSpec {
                path,
                strip_path: true,
                methods,
                auth: Some(auth),
                ..HttpTriggerSpec::default()
            });
            spec.enabled = config.boolean("disableURLInternet")?.filter(|disabled| *disabled).map(|disabled| !disabled);
        }
        kind if FOREIGN.contains(&kind) => return Ok(None),
        other => {
            let shown: String = other.chars().take(32).collect();
            let known = FOREIGN.join(", ");
            return Err(Fault::invalid(format!("`triggerType` is '{shown}'; it must be timer, http, {known}")));
        }
    }
    Ok(Some(spec))
}

/// An expression and its time zone, which may stand before it.
fn schedule(text: &str) -> (String, Option<String>) {
    let zone = text.trim().strip_prefix(ZONE).and_then(|rest| rest.split_once(' '));
    zone.map_or_else(|| (text.trim().to_owned(), None), |(zone, cron)| (cron.trim().to_owned(), Some(zone.to_owned())))
}

fn etag(kept: &Map<String, Value>) -> String {
    kept.get("lastModifiedTime").and_then(Value::as_str).unwrap_or("0").to_owned()
}

fn answer(asked: &Asked, function: &Function, name: &str, kept: &Map<String, Value>) -> Reply {
    Reply::json(view(asked, function, name, kept)).with_etag(&etag(kept))
}

fn view(asked: &Asked, function: &Function, name: &str, kept: &Map<String, Value>) -> Value {
    let mut view = kept.clone();
    let config = kept.get("triggerConfig").cloned().unwrap_or_else(|| json!({}));
    // Generated clients have it as text.
    let config = if asked.api == Api::V2016 { config } else { config.to_string().into() };
    let mut set = |name: &str, value: Value| drop(view.insert(name.to_owned(), value));
    set("triggerName", name.into());
    set("triggerId", format!("{:x}-{name}", microseconds(function.created)).into());
    set("triggerConfig", config);
    set("targetArn", format!("{ARN}{}", function.name).into());
    set("status", "".into());
    if kept.get("triggerType").and_then(Value::as_str) == Some("http") {
        let own = function.triggers.get(name).and_then(|spec| spec.http.as_ref()?.path.clone());
        let path = own.unwrap_or_default();
        let url = format!("{}{}", asked.data, path.trim_end_matches('*'));
        if asked.api.has_services() {
            set("urlInternet", url.clone().into());
            set("urlIntranet", url.into());
        } else {
            set("httpTrigger", json!({"urlInternet": url, "urlIntranet": url}));
        }
    }
    for name in ["description", "qualifier", "sourceArn", "invocationRole"] {
        view.entry(name).or_insert_with(|| if name == "qualifier" { LATEST.into() } else { "".into() });
    }
    Value::Object(view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_may_stand_before_an_expression() {
        let zoned = |text| schedule(text);
        assert_eq!(zoned("0 0 12 * * *"), ("0 0 12 * * *".to_owned(), None));
        assert_eq!(zoned(" @every 5m "), ("@every 5m".to_owned(), None));
        let own = Some("Asia/Shanghai".to_owned());
        assert_eq!(zoned("CRON_TZ=Asia/Shanghai 0 0 12 * * *"), ("0 0 12 * * *".to_owned(), own));
    }
}
