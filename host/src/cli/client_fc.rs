//! Requests of Function Compute's APIs, for files of Serverless Devs.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::client::{Client, address_of, answer_of, broken, foreign, reached};
use super::client_error::ClientError;
use crate::admin::model::Problem;

impl Client {
    /// Asks for an operation, and reads the JSON of its answer; none if there is no such thing.
    pub(super) async fn fc(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Option<Value>, ClientError> {
        let is_question = method == Method::GET;
        let mut request = self.admin_request(method, path, query);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = reached(request).await?;
        let (status, address) = (response.status(), address_of(response.url()));
        let text = response.text().await.map_err(|error| broken(address.clone(), &error))?;
        if status.is_success() {
            return Ok(Some(if text.is_empty() { Value::Null } else { answer_of(&text, address)? }));
        }
        if is_question && status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let said = serde_json::from_str::<Value>(&text).unwrap_or_default();
        let (Some(code), Some(detail)) = (said["ErrorCode"].as_str(), said["ErrorMessage"].as_str()) else {
            return Err(foreign(address, status, &text));
        };
        let (code, detail) = (code.to_owned(), detail.to_owned());
        let request_id = said["RequestId"].as_str().unwrap_or_default().to_owned();
        let title = status.to_string();
        let problem = Problem { r#type: String::new(), title, status: status.as_u16(), code, detail, request_id };
        Err(ClientError::Refused(Box::new(problem)))
    }
}
