//! How many instances there are: provisioned, on demand, reserved, and as the load asks for.
//!
//! Of `LATEST` the number becomes a setting. The settings of a published version never change, so that of others is kept only,
//! and the answer says so.

use serde_json::{Map, Value, json};

use super::Fc;
use super::api::Op;
use super::fault::Fault;
use super::function::ARN;
use super::input::without_nulls;
use super::request::{Asked, Reply, Target, page};
use super::store::{Document, Kind};
use crate::access::Right;
use crate::catalog::Function;
use crate::ids::LATEST;

/// Instances that may be asked for.
const INSTANCES_MAX: u64 = 100_000;

/// A kind of number.
struct Number {
    kind: Kind,
    /// The list of all.
    plural: &'static str,
    /// The fields that hold it; the first that is there counts.
    names: &'static [&'static str],
    /// The setting that it becomes.
    setting: &'static str,
    /// The least that makes sense.
    least: u64,
    /// What it is without one.
    default: Option<u64>,
}

const PROVISION: Number = Number {
    kind: Kind::Provision,
    plural: "provisionConfigs",
    names: &["target", "defaultTarget"],
    setting: "minInstances",
    least: 0,
    default: Some(0),
};
const SCALING: Number = Number {
    kind: Kind::Scaling,
    plural: "scalingConfigs",
    names: &["minInstances"],
    setting: "minInstances",
    least: 0,
    default: Some(0),
};
const ON_DEMAND: Number = Number {
    kind: Kind::OnDemand,
    plural: "configs",
    names: &["maximumInstanceCount"],
    setting: "maxInstances",
    least: 1,
    default: None,
};
const RESERVED: Number = Number {
    kind: Kind::Concurrency,
    plural: "configs",
    names: &["reservedConcurrency"],
    setting: "maxInstances",
    least: 1,
    default: None,
};

/// Carries out one of the operations about these numbers.
pub(super) async fn run(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let number = match asked.op {
        Op::PutProvisionConfig | Op::GetProvisionConfig | Op::DeleteProvisionConfig | Op::ListProvisionConfigs => {
            &PROVISION
        }
        Op::PutOnDemandConfig | Op::GetOnDemandConfig | Op::DeleteOnDemandConfig | Op::ListOnDemandConfigs => {
            &ON_DEMAND
        }
        Op::PutScalingConfig | Op::GetScalingConfig | Op::DeleteScalingConfig | Op::ListScalingConfigs => &SCALING,
        _ => &RESERVED,
    };
    let name = asked.op.as_str();
    if name.starts_with("Put") {
        put(fc, asked, number).await
    } else if name.starts_with("Delete") {
        delete(fc, asked, number).await
    } else if name.starts_with("List") {
        list(fc, asked, number)
    } else {
        get(fc, asked, number)
    }
}

async fn put(fc: &Fc, asked: &Asked, number: &Number) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let _changing = fc.changing.lock().await;
    let function = fc.function(&target)?;
    fc.revision(&function, &target)?;
    let fields = asked.body();
    let mut wanted = None;
    for name in number.names {
        wanted = wanted.or(fields.whole(name, number.least..=INSTANCES_MAX)?);
    }
    let wanted = wanted.ok_or_else(|| {
        let least = number.least;
        Fault::invalid(format!(
            "`{}` is missing; it must be a whole number, {least} to {INSTANCES_MAX}",
            number.names[0]
        ))
    })?;
    let qualifier = target.shown_qualifier();
    let mut kept: Map<String, Value> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), without_nulls(value)))
        .collect();
    kept.remove("warnings");
    if qualifier == LATEST {
        fc.host.configure(target.name.clone(), json!({number.setting: wanted})).await?;
    } else {
        let warning = format!(
            "the settings of a published version never change, so this is kept and has no effect; set it on LATEST before it is published \
             (`{}`)",
            number.setting
        );
        tracing::warn!(function = %function.name, qualifier, "{warning}");
        kept.insert("warnings".to_owned(), json!([warning]));
    }
    let document = fc.store.put(number.kind, target.name.as_str(), &qualifier, &kept).await?;
    Ok(Reply::json(view(fc, number, (&function, &target), Some(&document))))
}

fn get(fc: &Fc, asked: &Asked, number: &Number) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let function = fc.function(&target)?;
    let document = fc.store.get(number.kind, target.name.as_str(), &target.shown_qualifier());
    let document = document.filter(|document| document.created >= function.created);
    Ok(Reply::json(view(fc, number, (&function, &target), document.as_deref())))
}

async fn delete(fc: &Fc, asked: &Asked, number: &Number) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let _changing = fc.changing.lock().await;
    fc.function(&target)?;
    let qualifier = target.shown_qualifier();
    if fc.store.remove(number.kind, target.name.as_str(), &qualifier).await? && qualifier == LATEST {
        fc.host.configure(target.name.clone(), json!({number.setting: null})).await?;
    }
    Ok(Reply::nothing())
}

fn list(fc: &Fc, asked: &Asked, number: &Number) -> Result<Reply, Fault> {
    let service = asked.param("serviceName");
    let mut views = Vec::new();
    for document in fc.store.list(number.kind) {
        let Some(function) = fc.host.function(&document.owner) else { continue };
        let (own, _) = function.name.parts();
        let is_meant = own.is_some() == asked.api.has_services() && service.is_none_or(|name| own == Some(name));
        let is_own = document.created >= function.created && asked.operator.may(Right::Read, &document.owner);
        if is_meant && is_own {
            let qualifier = Some(document.name.clone());
            let target = Target { service: own.map(str::to_owned), name: function.name.clone(), qualifier };
            let place = format!("{} {}", document.owner, document.name);
            views.push((place, view(fc, number, (&function, &target), Some(&document))));
        }
    }
    page(asked, number.plural, views)
}

fn view(fc: &Fc, number: &Number, (function, target): (&Function, &Target), document: Option<&Document>) -> Value {
    let (own, qualifier) = (function.name.parts().1, target.shown_qualifier());
    let mut view = Map::new();
    if let Some(default) = number.default {
        view.insert(number.names[0].to_owned(), default.into());
    }
    if let Some(document) = document {
        view.extend(document.value.as_object().cloned().unwrap_or_default());
    }
    let counts = fc.host.instance_counts(&function.name);
    let awake = counts.active + counts.freezing + counts.parked + counts.suspended;
    let mut set = |name: &str, value: Value| drop(view.insert(name.to_owned(), value));
    match number.kind {
        Kind::Provision => {
            set("current", awake.into());
            set("currentError", "".into());
        }
        Kind::Scaling => {
            set("currentInstances", awake.into());
            set("currentError", "".into());
        }
        _ => {}
    }
    match &target.service {
        Some(service) => {
            set("resource", format!("0#{service}#{qualifier}#{own}").into());
            set("serviceName", service.clone().into());
            set("functionName", own.into());
            set("qualifier", qualifier.into());
        }
        None => set("functionArn", format!("{ARN}{own}/{qualifier}").into()),
    }
    Value::Object(view)
}
