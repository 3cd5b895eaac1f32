//! The bill: sums, and the records behind them.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};

use super::Plane;
use super::model::Problem;
use crate::access::Right;
use crate::ids::FunctionName;
use crate::ledger::{InvocationPage, RecordQuery, Usage, UsageQuery, WindowPage};
use crate::operator::Operator;
use crate::web::problem::Failure;

type Shared = State<Arc<Plane>>;
type Queried<Q> = Result<Query<Q>, QueryRejection>;

/// What functions used, and what it is charged. Time that instances are parked now is included.
#[utoipa::path(get, path = "/v1/usage", operation_id = "sumUsage", params(UsageQuery), responses(
    (status = 200, body = Usage), (status = 400, body = Problem)))]
pub(super) async fn sums(
    State(plane): Shared,
    operator: Operator,
    query: Queried<UsageQuery>,
) -> Result<Json<Usage>, Failure> {
    let Query(query) = query?;
    let visible = visible(operator, query.function.as_ref())?;
    let host = plane.host.clone();
    Ok(Json(plane.host.tasks().blocking(move || host.usage(&query, &visible)).await??))
}

/// Active windows, newest last.
#[utoipa::path(get, path = "/v1/usage/windows", operation_id = "listWindows", params(RecordQuery), responses(
    (status = 200, body = WindowPage), (status = 400, body = Problem)))]
pub(super) async fn windows(
    State(plane): Shared,
    operator: Operator,
    query: Queried<RecordQuery>,
) -> Result<Json<WindowPage>, Failure> {
    let Query(query) = query?;
    let visible = visible(operator, query.function.as_ref())?;
    Ok(Json(plane.host.ask_ledger(move |ledger| ledger.windows(&query, &visible)).await??))
}

/// Requests, newest last.
#[utoipa::path(get, path = "/v1/usage/invocations", operation_id = "listInvocations", params(RecordQuery), responses(
    (status = 200, body = InvocationPage), (status = 400, body = Problem)))]
pub(super) async fn invocations(
    State(plane): Shared,
    operator: Operator,
    query: Queried<RecordQuery>,
) -> Result<Json<InvocationPage>, Failure> {
    let Query(query) = query?;
    let visible = visible(operator, query.function.as_ref())?;
    Ok(Json(plane.host.ask_ledger(move |ledger| ledger.invocations(&query, &visible)).await??))
}

/// The functions whose records an operator sees. To ask for another one is refused.
fn visible(
    operator: Operator,
    asked_for: Option<&FunctionName>,
) -> Result<impl Fn(&str) -> bool + Send + use<>, Failure> {
    if let Some(function) = asked_for {
        operator.check(Right::Read, function.as_str())?;
    }
    Ok(move |function: &str| operator.may(Right::Read, function))
}
