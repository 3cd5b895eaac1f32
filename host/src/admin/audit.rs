//! The audit log: noting changes, and reading it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use http::Method;
use serde::Deserialize;
use utoipa::openapi::OpenApi;

use super::Plane;
use super::model::{AuditEntry, AuditList, Problem};
use super::query;
use crate::access::{Entry, Right};
use crate::operator::Operator;
use crate::web::problem::Failure;

/// Which entries to show.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only entries about this function.
    function: Option<String>,
    /// Only entries before this one: the `next` of the previous page.
    before: Option<u64>,
    /// Entries on a page: 1 to 1000.
    limit: usize,
}

impl Default for AuditQuery {
    fn default() -> AuditQuery {
        AuditQuery { function: None, before: None, limit: 100 }
    }
}

/// What operators changed, the newest first, of the functions that the asking one may read. Entries that are about no function
/// take a key for all.
#[utoipa::path(get, path = "/v1/audit", operation_id = "listAudit", params(AuditQuery),
    responses((status = 200, body = AuditList), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    operator: Operator,
    asked: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditList>, Failure> {
    let Query(AuditQuery { function, before, limit }) = asked?;
    query::check_limit(limit)?;
    if let Some(function) = &function {
        operator.check(Right::Read, function)?;
    }
    let wanted = move |entry: &Entry| match &entry.function {
        Some(about) => function.as_ref().is_none_or(|only| only == about) && operator.may(Right::Read, about),
        None => function.is_none() && operator.may_with_all(Right::Read),
    };
    let read = plane.host.change_access(move |access| access.audit(before, limit + 1, wanted)).await??;
    let (page, next) = query::page(read, limit, |entry| entry.id);
    Ok(Json(AuditList { entries: page.into_iter().map(view).collect(), next }))
}

/// What the audit log says about a change beside its action and function; handlers add it to their answers.
#[derive(Clone)]
pub(super) struct Detail(pub(super) String);

impl Detail {
    /// As a part of a handler's answer.
    pub(super) fn attached(self) -> Extension<Detail> {
        Extension(self)
    }
}

/// The names of the API's changes, by method and path.
pub(super) struct Actions(HashMap<(Method, String), String>);

impl Actions {
    /// As the API's document has them.
    pub(super) fn of(document: &OpenApi) -> Actions {
        let mut actions = HashMap::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in [
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ] {
                let name = operation.as_ref().and_then(|operation| operation.operation_id.clone());
                actions.extend(name.map(|name| ((method, path.clone()), name)));
            }
        }
        Actions(actions)
    }

    /// The name of a change; none if it is none.
    pub(super) fn name(&self, method: &Method, path: &str) -> Option<&str> {
        self.0.get(&(method.clone(), path.to_owned())).map(String::as_str)
    }
}

fn view(entry: Entry) -> AuditEntry {
    AuditEntry {
        id: entry.id,
        time: humantime::format_rfc3339_millis(entry.at).to_string(),
        operator: entry.operator,
        address: entry.address,
        action: entry.action,
        function: entry.function,
        detail: entry.detail,
        status: entry.status,
    }
}
