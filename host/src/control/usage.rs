//! The bill: sums, and the records behind them.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};

use super::Plane;
use super::model::Problem;
use crate::http::problem::Failure;
use crate::ledger::{Group, InvocationPage, Ledger, QueryError, RecordQuery, Usage, UsageQuery, WindowPage};

type Shared = State<Arc<Plane>>;
type Queried<Q> = Result<Query<Q>, QueryRejection>;

/// What functions used, and what it is charged. Time that instances are parked now is included.
#[utoipa::path(get, path = "/v1/usage", operation_id = "sumUsage", params(UsageQuery), responses(
    (status = 200, body = Usage), (status = 400, body = Problem)))]
pub(super) async fn sums(State(plane): Shared, query: Queried<UsageQuery>) -> Result<Json<Usage>, Failure> {
    let Query(query) = query?;
    let asked = query.clone();
    let mut usage = ask(&plane, move |ledger| ledger.usage(&asked)).await?;
    if query.from.is_none() && query.to.is_none() {
        add_parked_now(&plane, &query, &mut usage);
    }
    Ok(Json(usage))
}

/// Active windows, newest last.
#[utoipa::path(get, path = "/v1/usage/windows", operation_id = "listWindows", params(RecordQuery), responses(
    (status = 200, body = WindowPage), (status = 400, body = Problem)))]
pub(super) async fn windows(State(plane): Shared, query: Queried<RecordQuery>) -> Result<Json<WindowPage>, Failure> {
    let Query(query) = query?;
    Ok(Json(ask(&plane, move |ledger| ledger.windows(&query)).await?))
}

/// Requests, newest last.
#[utoipa::path(get, path = "/v1/usage/invocations", operation_id = "listInvocations", params(RecordQuery), responses(
    (status = 200, body = InvocationPage), (status = 400, body = Problem)))]
pub(super) async fn invocations(
    State(plane): Shared,
    query: Queried<RecordQuery>,
) -> Result<Json<InvocationPage>, Failure> {
    let Query(query) = query?;
    Ok(Json(ask(&plane, move |ledger| ledger.invocations(&query)).await?))
}

async fn ask<T: Send + 'static>(
    plane: &Arc<Plane>,
    question: impl FnOnce(&Ledger) -> Result<T, QueryError> + Send + 'static,
) -> Result<T, Failure> {
    let asked = plane.clone();
    Ok(plane.parts.tasks.blocking(move || question(&asked.parts.ledger)).await??)
}

/// The ledger learns how long an instance was parked when it wakes; until then the pools know.
fn add_parked_now(plane: &Plane, query: &UsageQuery, usage: &mut Usage) {
    for (function, pool) in plane.parts.pools.all() {
        if query.function.as_ref().is_some_and(|only| *only != function) {
            continue;
        }
        for (parked, bytes) in pool.parked() {
            usage.total.add_parked(parked, bytes);
            let group = usage.groups.iter_mut().find(|group| group.key == function.as_str());
            if let (Group::Function, Some(group)) = (query.group, group) {
                group.sums.add_parked(parked, bytes);
            }
        }
    }
}
