//! The client's part for asynchronous invocations and triggers.

use bytes::Bytes;
use reqwest::Method;

use super::answer::Answer;
use super::client::{Client, answered};
use super::client_error::ClientError;
use crate::admin::model::{
    AsyncInvocationList, FiredView, ReplayRequest, ReplayView, ReplayedView, StopView, TriggerList, WebhookSecretView,
    WholeAsyncInvocation,
};
use crate::ids::{FunctionName, RequestId};

/// A receipt for an asynchronous invocation.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Receipt {
    pub(super) invocation_id: String,
    pub(super) known: bool,
}

impl Client {
    /// `POST /invoke/{function}` on the data plane, without waiting for the function.
    pub(super) async fn invoke_async(
        &self,
        name: &FunctionName,
        qualifier: Option<&str>,
        id: Option<&str>,
        event: Bytes,
    ) -> Result<Answer<Receipt>, ClientError> {
        let request = self.invocation(name, qualifier, event).await?.header("dormouse-invocation-type", "async");
        let request = match id {
            Some(id) => request.header("dormouse-invocation-id", id),
            None => request,
        };
        answered(request).await
    }

    /// `GET /v1/functions/{name}/invocations`.
    pub(super) async fn invocations(
        &self,
        name: &FunctionName,
        query: &[(&str, String)],
    ) -> Result<Answer<AsyncInvocationList>, ClientError> {
        self.read(&["v1", "functions", name.as_str(), "invocations"], query).await
    }

    /// `GET /v1/functions/{name}/invocations/{id}`.
    pub(super) async fn invocation_of(
        &self,
        name: &FunctionName,
        id: &RequestId,
    ) -> Result<Answer<WholeAsyncInvocation>, ClientError> {
        self.read(&["v1", "functions", name.as_str(), "invocations", id.as_str()], &[]).await
    }

    /// `POST /v1/functions/{name}/invocations/{id}/stop`.
    pub(super) async fn stop_invocation(
        &self,
        name: &FunctionName,
        id: &RequestId,
    ) -> Result<Answer<StopView>, ClientError> {
        let path = ["v1", "functions", name.as_str(), "invocations", id.as_str(), "stop"];
        answered(self.admin_request(Method::POST, &path, &[])).await
    }

    /// `POST /v1/functions/{name}/invocations/{id}/replay`.
    pub(super) async fn replay(&self, name: &FunctionName, id: &RequestId) -> Result<Answer<ReplayView>, ClientError> {
        let path = ["v1", "functions", name.as_str(), "invocations", id.as_str(), "replay"];
        answered(self.admin_request(Method::POST, &path, &[])).await
    }

    /// `POST /v1/functions/{name}/replay`.
    pub(super) async fn replay_all(
        &self,
        name: &FunctionName,
        wanted: &ReplayRequest,
    ) -> Result<Answer<ReplayedView>, ClientError> {
        let path = ["v1", "functions", name.as_str(), "replay"];
        answered(self.admin_request(Method::POST, &path, &[]).json(wanted)).await
    }

    /// `GET /v1/functions/{name}/triggers`.
    pub(super) async fn triggers(&self, name: &FunctionName) -> Result<Answer<TriggerList>, ClientError> {
        self.read(&["v1", "functions", name.as_str(), "triggers"], &[]).await
    }

    /// `POST /v1/functions/{name}/triggers/{trigger}/fire`.
    pub(super) async fn fire(&self, name: &FunctionName, trigger: &str) -> Result<Answer<FiredView>, ClientError> {
        let path = ["v1", "functions", name.as_str(), "triggers", trigger, "fire"];
        answered(self.admin_request(Method::POST, &path, &[])).await
    }

    /// `GET /v1/functions/{name}/webhook-secret`.
    pub(super) async fn webhook_secret(&self, name: &FunctionName) -> Result<Answer<WebhookSecretView>, ClientError> {
        self.read(&["v1", "functions", name.as_str(), "webhook-secret"], &[]).await
    }
}
