//! The one way from commands to a host: the admin plane's v1 API and the data plane's invoke.
//!
//! A method per endpoint, thin and typed. An answer keeps the host's own JSON beside the value, so that `--json` shows
//! exactly what the API said. Nothing here prints.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::Stream;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::address::{DATA_ADDRESS, data_url, joined};
use super::answer::Answer;
use super::client_error::{ClientError, root_cause};
use super::log_stream;
use super::output;
use super::trust::Trust;
use crate::admin::model::{
    AliasList, AliasRequest, AliasView, DisableRequest, FunctionList, FunctionView, HostView, InstanceList, LogLine,
    LogLines, Problem, PublishRequest, VersionList, VersionView,
};
use crate::admin::model::{AuditList, CreateKeyRequest, KeyList, KeyWithSecret, RotateKeyRequest};
use crate::ids::{AliasName, FunctionName, InstanceId, KeyId, VersionNumber};
use crate::ledger::Usage;

/// A host on this network answers a connection at once, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an answer that is no problem document is shown.
const ODD_BODY_CHARS_MAX: usize = 300;

/// The data plane's answer to an invocation.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A client of one host.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    admin: Url,
    /// None: the host is asked, once.
    data: OnceCell<Url>,
    authorization: Option<HeaderValue>,
    /// Whether the data plane gets the key too.
    key_for_data: bool,
}

impl Client {
    /// A client of the host with those two planes. Without an address of the data plane the host is asked for it.
    pub(super) fn new(admin: Url, data: Option<Url>, key: Option<&str>, trust: &Trust) -> anyhow::Result<Client> {
        let key = key.filter(|key| !key.is_empty());
        let authorization = key.map(|key| HeaderValue::try_from(format!("Bearer {key}"))).transpose();
        let mut authorization = authorization.context("the key has characters that no key has")?;
        authorization.iter_mut().for_each(|value| value.set_sensitive(true));
        let http = trust.apply(reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT))?.build()?;
        Ok(Client { http, admin, data: OnceCell::new_with(data), authorization, key_for_data: true })
    }

    /// The same client, whose key is for the admin plane only.
    pub(super) fn without_key_for_data(self) -> Client {
        Client { key_for_data: false, ..self }
    }

    /// Where callers reach the host's functions. A host whose admin plane cannot be reached is taken to listen where hosts
    /// do by default.
    pub(super) async fn data(&self) -> Result<&Url, ClientError> {
        self.data
            .get_or_try_init(async || {
                let shown = match self.host().await {
                    Err(refused @ ClientError::Refused(_)) => return Err(refused),
                    shown => shown,
                };
                let bound = shown.ok().and_then(|shown| shown.value.data_address.parse().ok());
                Ok(data_url(&self.admin, bound.unwrap_or(DATA_ADDRESS)))
            })
            .await
    }

    /// The admin plane's address.
    pub(super) fn admin(&self) -> &Url {
        &self.admin
    }

    /// `GET /v1/host`.
    pub(super) async fn host(&self) -> Result<Answer<HostView>, ClientError> {
        self.read(&["v1", "host"], &[]).await
    }

    /// `GET /v1/functions`.
    pub(super) async fn functions(&self) -> Result<Answer<FunctionList>, ClientError> {
        self.read(&["v1", "functions"], &[]).await
    }

    /// `GET /v1/functions/{name}`.
    pub(super) async fn function(&self, name: &FunctionName) -> Result<Answer<FunctionView>, ClientError> {
        self.read(&["v1", "functions", name.as_str()], &[]).await
    }

    /// The function, or `None` if the host has none of that name.
    pub(super) async fn function_if_any(&self, name: &FunctionName) -> Result<Option<FunctionView>, ClientError> {
        match self.function(name).await {
            Ok(answer) => Ok(Some(answer.value)),
            Err(ClientError::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `PUT /v1/functions/{name}/code`, with a merge patch of settings that takes effect together with the code.
    pub(super) async fn put_code(
        &self,
        name: &FunctionName,
        component: Upload,
        settings: HeaderValue,
    ) -> Result<Answer<FunctionView>, ClientError> {
        let request = self
            .admin_request(Method::PUT, &["v1", "functions", name.as_str(), "code"], &[])
            .header(CONTENT_TYPE, "application/wasm")
            .header(CONTENT_LENGTH, component.bytes)
            .header("dormouse-settings", settings)
            .body(component.body);
        answered(request).await
    }

    /// `PATCH /v1/functions/{name}`, with a merge patch of settings.
    pub(super) async fn configure(
        &self,
        name: &FunctionName,
        patch: &Value,
    ) -> Result<Answer<FunctionView>, ClientError> {
        answered(self.admin_request(Method::PATCH, &["v1", "functions", name.as_str()], &[]).json(patch)).await
    }

    /// `DELETE /v1/functions/{name}`.
    pub(super) async fn delete(&self, name: &FunctionName) -> Result<Answer<()>, ClientError> {
        self.order(Method::DELETE, &["v1", "functions", name.as_str()]).await
    }

    /// `POST /v1/functions/{name}/suspend`.
    pub(super) async fn suspend(&self, name: &FunctionName) -> Result<Answer<()>, ClientError> {
        self.order(Method::POST, &["v1", "functions", name.as_str(), "suspend"]).await
    }

    /// `POST /v1/functions/{name}/resume`.
    pub(super) async fn resume(&self, name: &FunctionName) -> Result<Answer<()>, ClientError> {
        self.order(Method::POST, &["v1", "functions", name.as_str(), "resume"]).await
    }

    /// `POST /v1/functions/{name}/disable`.
    pub(super) async fn disable(&self, name: &FunctionName, reason: String) -> Result<Answer<()>, ClientError> {
        let path = ["v1", "functions", name.as_str(), "disable"];
        done(self.admin_request(Method::POST, &path, &[]).json(&DisableRequest { reason })).await
    }

    /// `POST /v1/functions/{name}/enable`.
    pub(super) async fn enable(&self, name: &FunctionName) -> Result<Answer<()>, ClientError> {
        self.order(Method::POST, &["v1", "functions", name.as_str(), "enable"]).await
    }

    /// `POST /v1/functions/{name}/versions`.
    pub(super) async fn publish(
        &self,
        name: &FunctionName,
        description: String,
    ) -> Result<Answer<VersionView>, ClientError> {
        let path = ["v1", "functions", name.as_str(), "versions"];
        answered(self.admin_request(Method::POST, &path, &[]).json(&PublishRequest { description })).await
    }

    /// `GET /v1/functions/{name}/versions`.
    pub(super) async fn versions(&self, name: &FunctionName) -> Result<Answer<VersionList>, ClientError> {
        self.read(&["v1", "functions", name.as_str(), "versions"], &[]).await
    }

    /// `DELETE /v1/functions/{name}/versions/{version}`.
    pub(super) async fn delete_version(
        &self,
        name: &FunctionName,
        version: VersionNumber,
    ) -> Result<Answer<()>, ClientError> {
        self.order(Method::DELETE, &["v1", "functions", name.as_str(), "versions", &version.to_string()]).await
    }

    /// `GET /v1/functions/{name}/aliases`.
    pub(super) async fn aliases(&self, name: &FunctionName) -> Result<Answer<AliasList>, ClientError> {
        self.read(&["v1", "functions", name.as_str(), "aliases"], &[]).await
    }

    /// `PUT /v1/functions/{name}/aliases/{alias}`.
    pub(super) async fn set_alias(
        &self,
        name: &FunctionName,
        alias: &AliasName,
        wanted: &AliasRequest,
    ) -> Result<Answer<AliasView>, ClientError> {
        let path = ["v1", "functions", name.as_str(), "aliases", alias.as_str()];
        answered(self.admin_request(Method::PUT, &path, &[]).json(wanted)).await
    }

    /// `POST /v1/functions/{name}/aliases/{alias}/rollback`.
    pub(super) async fn roll_back(
        &self,
        name: &FunctionName,
        alias: &AliasName,
    ) -> Result<Answer<AliasView>, ClientError> {
        let path = ["v1", "functions", name.as_str(), "aliases", alias.as_str(), "rollback"];
        answered(self.admin_request(Method::POST, &path, &[])).await
    }

    /// `DELETE /v1/functions/{name}/aliases/{alias}`.
    pub(super) async fn delete_alias(&self, name: &FunctionName, alias: &AliasName) -> Result<Answer<()>, ClientError> {
        self.order(Method::DELETE, &["v1", "functions", name.as_str(), "aliases", alias.as_str()]).await
    }

    /// `POST /v1/instances/{id}/stop`.
    pub(super) async fn stop(&self, id: InstanceId) -> Result<Answer<()>, ClientError> {
        self.order(Method::POST, &["v1", "instances", &id.to_string(), "stop"]).await
    }

    /// `GET /v1/functions/{name}/instances`.
    pub(super) async fn instances(&self, name: &FunctionName) -> Result<Answer<InstanceList>, ClientError> {
        self.read(&["v1", "functions", name.as_str(), "instances"], &[]).await
    }

    /// `GET /v1/functions/{name}/logs`.
    pub(super) async fn logs(
        &self,
        name: &FunctionName,
        query: &[(&str, String)],
    ) -> Result<Answer<LogLines>, ClientError> {
        self.read(&["v1", "functions", name.as_str(), "logs"], query).await
    }

    /// The same with `follow=true`: the newest lines, then each new one as the function writes it.
    pub(super) async fn follow(
        &self,
        name: &FunctionName,
        query: &[(&str, String)],
    ) -> Result<impl Stream<Item = Result<Answer<LogLine>, ClientError>> + use<>, ClientError> {
        let query = [query, &[("follow", "true".to_owned())]].concat();
        let request = self
            .admin_request(Method::GET, &["v1", "functions", name.as_str(), "logs"], &query)
            .header(ACCEPT, "text/event-stream");
        let response = sent(request).await?;
        let address = address_of(response.url());
        Ok(log_stream::lines(response, address))
    }

    /// `GET /v1/usage`.
    pub(super) async fn usage(&self, query: &[(&str, String)]) -> Result<Answer<Usage>, ClientError> {
        self.read(&["v1", "usage"], query).await
    }

    /// `GET /v1/usage/{records}`: `windows` or `invocations`.
    pub(super) async fn usage_records<T: DeserializeOwned>(
        &self,
        records: &str,
        query: &[(&str, String)],
    ) -> Result<Answer<T>, ClientError> {
        self.read(&["v1", "usage", records], query).await
    }

    /// `GET /v1/keys`.
    pub(super) async fn keys(&self) -> Result<Answer<KeyList>, ClientError> {
        self.read(&["v1", "keys"], &[]).await
    }

    /// `POST /v1/keys`.
    pub(super) async fn create_key(&self, wanted: &CreateKeyRequest) -> Result<Answer<KeyWithSecret>, ClientError> {
        answered(self.admin_request(Method::POST, &["v1", "keys"], &[]).json(wanted)).await
    }

    /// `POST /v1/keys/{id}/rotate`.
    pub(super) async fn rotate_key(
        &self,
        id: KeyId,
        wanted: &RotateKeyRequest,
    ) -> Result<Answer<KeyWithSecret>, ClientError> {
        let path = ["v1", "keys", &id.to_string(), "rotate"];
        answered(self.admin_request(Method::POST, &path, &[]).json(wanted)).await
    }

    /// `DELETE /v1/keys/{id}`.
    pub(super) async fn revoke_key(&self, id: KeyId) -> Result<Answer<()>, ClientError> {
        self.order(Method::DELETE, &["v1", "keys", &id.to_string()]).await
    }

    /// `GET /v1/audit`.
    pub(super) async fn audit(&self, query: &[(&str, String)]) -> Result<Answer<AuditList>, ClientError> {
        self.read(&["v1", "audit"], query).await
    }

    /// Whether the host at the admin address is ready to serve.
    pub(super) async fn is_ready(&self) -> Result<bool, ClientError> {
        match sent(self.admin_request(Method::GET, &["readyz"], &[])).await {
            Ok(_) => Ok(true),
            Err(ClientError::Refused(problem)) if problem.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() => {
                Ok(false)
            }
            Err(ClientError::Foreign { status: StatusCode::SERVICE_UNAVAILABLE, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `POST /invoke/{function}` on the data plane.
    pub(super) async fn invoke(
        &self,
        name: &FunctionName,
        qualifier: Option<&str>,
        event: Bytes,
    ) -> Result<Reply, ClientError> {
        let response = sent(self.invocation(name, qualifier, event).await?).await?;
        let headers = response.headers().clone();
        let address = address_of(response.url());
        let body = response.bytes().await.map_err(|error| broken(address, &error))?;
        Ok(Reply { headers, body })
    }

    /// A request to invoke a function.
    pub(super) async fn invocation(
        &self,
        name: &FunctionName,
        qualifier: Option<&str>,
        event: Bytes,
    ) -> Result<RequestBuilder, ClientError> {
        let query: Vec<_> = qualifier.map(|qualifier| ("qualifier", qualifier.to_owned())).into_iter().collect();
        let url = joined(self.data().await?, &["invoke", name.as_str()], &query);
        let request = self.http.post(url).body(event);
        Ok(if self.key_for_data { self.with_key(request) } else { request })
    }

    /// Makes sure that a Dormouse serves the data address, without calling any function.
    pub(super) async fn recognise_data_plane(&self) -> Result<(), ClientError> {
        // No function can have that name, and every Dormouse says so in its own way.
        match sent(self.http.post(joined(self.data().await?, &["invoke", "0"], &[]))).await {
            Ok(_) | Err(ClientError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where callers reach a function.
    pub(super) async fn url_of(&self, function: &FunctionView) -> Result<Url, ClientError> {
        let data = self.data().await?;
        match function.exports.takes_http() {
            true => Ok(joined(data, &["fn", &function.name, ""], &[])),
            false => Ok(joined(data, &["invoke", &function.name], &[])),
        }
    }

    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Answer<T>, ClientError> {
        answered(self.admin_request(Method::GET, path, query)).await
    }

    /// Sends a request without a body whose success is all that matters.
    async fn order(&self, method: Method, path: &[&str]) -> Result<Answer<()>, ClientError> {
        done(self.admin_request(method, path, &[])).await
    }

    pub(super) fn admin_request(&self, method: Method, path: &[&str], query: &[(&str, String)]) -> RequestBuilder {
        self.with_key(self.http.request(method, joined(&self.admin, path, query)))
    }

    fn with_key(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        }
    }
}

/// A body on its way to the host.
pub(super) struct Upload {
    pub(super) body: reqwest::Body,
    pub(super) bytes: u64,
}

pub(super) fn address_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Sends a request; an error says why nobody answered.
pub(super) async fn reached(request: RequestBuilder) -> Result<Response, ClientError> {
    let (http, request) = request.build_split();
    let request = request.map_err(|error| broken("the host".to_owned(), &error))?;
    let address = address_of(request.url());
    match http.execute(request).await {
        Ok(response) => Ok(response),
        Err(error) if error.is_connect() => {
            let cause = root_cause(&error);
            // What was wrong in TLS comes as text only.
            Err(if cause.contains("peer certificate") {
                ClientError::Untrusted { address, cause }
            } else {
                ClientError::Unreachable { address, cause }
            })
        }
        Err(error) => Err(broken(address, &error)),
    }
}

/// Sends a request; every answer but a success is an error.
async fn sent(request: RequestBuilder) -> Result<Response, ClientError> {
    let response = reached(request).await?;
    let address = address_of(response.url());
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = response.text().await.map_err(|error| broken(address.clone(), &error))?;
    match serde_json::from_str::<Problem>(&body) {
        Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
        Err(_) => Err(foreign(address, status, &body)),
    }
}

/// The error for an answer that no Dormouse gives.
pub(super) fn foreign(address: String, status: StatusCode, body: &str) -> ClientError {
    let body = output::plain(&body.trim().chars().take(ODD_BODY_CHARS_MAX).collect::<String>());
    ClientError::Foreign { address, status, body }
}

/// Sends a request whose success is all that matters; the host may say more, or nothing.
async fn done(request: RequestBuilder) -> Result<Answer<()>, ClientError> {
    let response = sent(request).await?;
    let address = address_of(response.url());
    let json = response.text().await.map_err(|error| broken(address, &error))?;
    Ok(Answer { json: if json.is_empty() { "{}".to_owned() } else { json }, value: () })
}

pub(super) async fn answered<T: DeserializeOwned>(request: RequestBuilder) -> Result<Answer<T>, ClientError> {
    let response = sent(request).await?;
    let address = address_of(response.url());
    let json = response.text().await.map_err(|error| broken(address.clone(), &error))?;
    let value = answer_of(&json, address)?;
    Ok(Answer { json, value })
}

/// The value that an answer's JSON stands for.
pub(super) fn answer_of<T: DeserializeOwned>(json: &str, address: String) -> Result<T, ClientError> {
    serde_json::from_str(json)
        .map_err(|error| ClientError::Broken { address, cause: format!("read its JSON: {error}") })
}

pub(super) fn broken(address: String, error: &reqwest::Error) -> ClientError {
    ClientError::Broken { address, cause: root_cause(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_a_sentence() {
        let problem = Problem {
            r#type: "about:blank".to_owned(),
            title: "Not Found".to_owned(),
            status: 404,
            code: "function-not-found".to_owned(),
            detail: "there is no function `x`".to_owned(),
            request_id: "r".to_owned(),
        };
        let error = ClientError::Refused(Box::new(problem));
        assert_eq!(error.to_string(), "there is no function `x` (function-not-found)");
    }
}
