//! Aliases: list, show, set, roll back, delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;

use super::Plane;
use super::audit::Detail;
use super::functions::json;
use super::model::{AliasList, AliasRequest, AliasView, Problem};
use super::reject::{Named, NamedOf, find};
use crate::catalog::{Alias, AliasChange};
use crate::ids::{AliasName, FunctionName};
use crate::web::problem::{Code, Failure};

type Shared = State<Arc<Plane>>;

/// A function's aliases.
#[utoipa::path(get, path = "/v1/functions/{name}/aliases", operation_id = "listAliases",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = AliasList), (status = 404, body = Problem)))]
pub(super) async fn list(State(plane): Shared, Named(name): Named<FunctionName>) -> Result<Json<AliasList>, Failure> {
    let function = find(&plane.host, &name)?;
    Ok(Json(AliasList { aliases: function.aliases.values().map(|alias| view(&name, alias)).collect() }))
}

/// One alias.
#[utoipa::path(get, path = "/v1/functions/{name}/aliases/{alias}", operation_id = "showAlias",
    params(("name" = String, Path, description = "The function's name"), ("alias" = String, Path, description = "The alias")),
    responses((status = 200, body = AliasView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(plane): Shared,
    NamedOf(name, alias): NamedOf<AliasName>,
) -> Result<Json<AliasView>, Failure> {
    let function = find(&plane.host, &name)?;
    let found = function.aliases.get(&alias);
    let found =
        found.ok_or_else(|| Failure::new(Code::AliasNotFound, format!("function `{name}` has no alias `{alias}`")))?;
    Ok(Json(view(&name, found)))
}

/// Makes an alias, or moves it to another version, in one step: each request gets the old one or the new one.
#[utoipa::path(put, path = "/v1/functions/{name}/aliases/{alias}", operation_id = "setAlias",
    params(("name" = String, Path, description = "The function's name"), ("alias" = String, Path, description = "The alias")),
    request_body = AliasRequest,
    responses((status = 200, body = AliasView), (status = 201, body = AliasView), (status = 404, body = Problem),
              (status = 422, body = Problem)))]
pub(super) async fn set(
    State(plane): Shared,
    NamedOf(name, alias): NamedOf<AliasName>,
    body: Body,
) -> Result<impl IntoResponse, Failure> {
    let AliasRequest { version, weights, description } = json(body).await?;
    let weights = weights.into_iter().map(|(version, weight)| Ok((version.parse()?, weight)));
    let change = AliasChange {
        version: version.map(|version| version.parse()).transpose()?,
        weights: weights.collect::<Result<BTreeMap<_, _>, Failure>>()?,
        description,
    };
    let (set, is_new) = plane.host.set_alias(name.clone(), alias, change).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let detail = Detail(format!("version {}", set.version));
    Ok((status, detail.attached(), Json(view(&name, &set))))
}

/// Moves an alias back to the version that it named before, without weights.
#[utoipa::path(post, path = "/v1/functions/{name}/aliases/{alias}/rollback", operation_id = "rollBackAlias",
    params(("name" = String, Path, description = "The function's name"), ("alias" = String, Path, description = "The alias")),
    responses((status = 200, body = AliasView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn roll_back(
    State(plane): Shared,
    NamedOf(name, alias): NamedOf<AliasName>,
) -> Result<impl IntoResponse, Failure> {
    let moved = plane.host.roll_back(name.clone(), alias).await?;
    let detail = Detail(format!("version {}", moved.version));
    Ok((detail.attached(), Json(view(&name, &moved))))
}

/// Deletes an alias; the versions stay.
#[utoipa::path(delete, path = "/v1/functions/{name}/aliases/{alias}", operation_id = "deleteAlias",
    params(("name" = String, Path, description = "The function's name"), ("alias" = String, Path, description = "The alias")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn delete(
    State(plane): Shared,
    NamedOf(name, alias): NamedOf<AliasName>,
) -> Result<StatusCode, Failure> {
    plane.host.delete_alias(name, alias).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(function: &FunctionName, alias: &Alias) -> AliasView {
    let time = |time| humantime::format_rfc3339_millis(time).to_string();
    AliasView {
        function: function.to_string(),
        alias: alias.name.to_string(),
        version: alias.version.to_string(),
        weights: alias.weights.iter().map(|(version, weight)| (version.to_string(), *weight)).collect(),
        earlier: alias.earlier.iter().map(ToString::to_string).collect(),
        description: alias.description.clone(),
        created_at: time(alias.created),
        updated_at: time(alias.updated),
    }
}
