//! Instances, the account, and what this host has none of.

use serde_json::{Value, json};

use super::Fc;
use super::api::Op;
use super::fault::Fault;
use super::request::{Asked, Reply, page};
use crate::clock::microseconds;
use crate::ids::LATEST;

/// A function's instances.
pub(super) fn instances(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let function = fc.function(&target)?;
    let qualifier = fc.qualifier(&target)?;
    let wanted = (target.qualifier.is_some() && qualifier != LATEST).then_some(qualifier);
    let instances = fc.host.instances(&function.name);
    let own = instances.iter().filter(|found| wanted.as_deref().is_none_or(|version| &*found.version == version));
    let views: Vec<Value> = own
        .map(|found| {
            json!({
                "instanceId": found.instance.id.to_string(), "versionId": &*found.version, "qualifier": &*found.version,
                "status": found.instance.state.as_str(), "resourceType": "component",
                "createdTimeMs": microseconds(found.instance.since) / 1000,
            })
        })
        .collect();
    Ok(Reply::json(json!({"instances": views, "requestId": asked.id.as_str()})))
}

pub(super) fn account() -> Reply {
    Reply::json(json!({"availableAZs": ["local"], "defaultRole": ""}))
}

pub(super) fn regions() -> Reply {
    Reply::json(json!({"regions": {"region": [{"regionId": "local"}]}}))
}

/// A list of what there is none of.
pub(super) fn nothing(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    if asked.names.function.is_some() {
        fc.function(&asked.target()?)?;
    } else if let Some((service, _)) = asked.service_target()? {
        fc.service(&service)?;
    }
    let plural = match asked.op {
        Op::ListLayers => "layers",
        Op::ListReservedCapacities => "reservedCapacities",
        Op::ListEventSources => "eventSources",
        Op::ListVpcBindings => "vpcIds",
        Op::ListSessions => "sessions",
        _ => "snapshots",
    };
    page(asked, plural, Vec::new())
}
