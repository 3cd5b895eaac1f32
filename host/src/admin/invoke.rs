//! Calling a function to see what it does: the whole answer as JSON, with the lines that it wrote.
//!
//! It is for the console, whose pages cannot reach the callers' listener. What the function answered is data in it, whatever it
//! may be to a browser.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};

use super::Plane;
use super::functions::json;
use super::model::{InvokeRequest, InvokeView, Problem};
use super::reject::{Named, find, invalid};
use crate::access::{Auth, Right};
use crate::guest::{self, EventInput, ResponseBody, StreamedBody};
use crate::ids::{FunctionName, RequestId};
use crate::instance::Outcome;
use crate::invoke::{Call, Caller, Payload, Takes};
use crate::log::Author;
use crate::operator::Operator;
use crate::web::headers;
use crate::web::problem::{Code, Failure};

/// How much of an answer is shown.
const BODY_BYTES_MAX: usize = 256 << 10;
/// How many of its lines are shown.
const LINES_MAX: usize = 200;

/// Calls the function, and answers what came of it. A function of HTTP gets the request that the fields describe.
#[utoipa::path(post, path = "/v1/functions/{name}/invoke", operation_id = "invokeFunction",
    params(("name" = String, Path, description = "The function's name")), request_body = InvokeRequest,
    responses((status = 200, body = InvokeView), (status = 404, body = Problem)))]
pub(super) async fn invoke(
    State(plane): State<Arc<Plane>>,
    operator: Operator,
    Named(name): Named<FunctionName>,
    body: Body,
) -> Result<Json<InvokeView>, Failure> {
    let asked: InvokeRequest = json(body).await?;
    let function = find(&plane.host, &name)?;
    let request = RequestId::new();
    let key = match &operator {
        Operator::Key(key) => {
            key.count_call()?;
            Some(&**key)
        }
        Operator::Local | Operator::Certificate(_) | Operator::Nobody => None,
    };
    let call = Call {
        function: name.as_str(),
        qualifier: asked.qualifier.as_deref(),
        affinity: None,
        request: request.clone(),
        trace: None,
        caller: Caller::Outside(key),
        // The guard has looked whether the operator may.
        auth: Some(Auth::None),
        attempt: 1,
        stop: None,
    };
    let room = plane.host.event_room();
    let payload = async |takes| match takes {
        Takes::Http => Ok(Payload::Http(Box::new(http_request(&asked)?))),
        Takes::Events | Takes::EventsOfHttp => {
            let bytes = Bytes::from(asked.event.clone());
            let full = || Failure::new(Code::HostFull, "too many large events wait or are handled");
            let share = room.take(bytes.len()).ok_or_else(full)?;
            Ok::<_, Failure>(Payload::Event(EventInput { bytes: bytes.into(), share }))
        }
    };
    let answer = plane.host.invoke(call, payload).await?;
    let (code, start, timings) = (answer.outcome.code(), answer.start.as_str(), answer.timings);
    let (status, body) = told(answer.outcome).await;
    let is_own = |author: &Author| matches!(author, Author::Request { id, .. } if *id == request);
    // Lines are for those who may read the log.
    let lines = if operator.may(Right::Read, name.as_str()) { function.log.tail(usize::MAX) } else { Vec::new() };
    let lines = lines.into_iter().filter(|line| is_own(&line.author)).map(|line| line.text);
    Ok(Json(InvokeView {
        request: request.to_string(),
        status: status.as_u16(),
        code: code.to_owned(),
        start: answer.instance.map(|_| start.to_owned()).unwrap_or_default(),
        server_timing: String::from_utf8_lossy(headers::server_timing(&timings).as_bytes()).into_owned(),
        body,
        lines: lines.take(LINES_MAX).collect(),
    }))
}

fn http_request(asked: &InvokeRequest) -> Result<http::Request<guest::Body>, Failure> {
    let mut request =
        http::Request::new(Full::from(asked.event.clone()).map_err(|never| match never {}).boxed_unsync());
    let method = asked.method.as_deref().unwrap_or("GET");
    *request.method_mut() = Method::from_bytes(method.as_bytes())
        .map_err(|_| invalid(format!("`method` is {method:?}, which no request can have")))?;
    let path = asked.path.as_deref().unwrap_or("/");
    let uri = path.starts_with('/').then(|| format!("http://localhost{path}").parse::<Uri>().ok()).flatten();
    let wrong = || {
        invalid(format!("`path` is {path:?}; it must begin with `/`, and what no address can have is written as `%20`"))
    };
    *request.uri_mut() = uri.ok_or_else(wrong)?;
    let mut fields = HeaderMap::new();
    for (name, value) in &asked.headers {
        let wrong = || invalid(format!("`headers` holds {name:?}, whose name or value no field may have"));
        let (name, value) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>());
        fields.append(name.map_err(|_| wrong())?, value.map_err(|_| wrong())?);
    }
    *request.headers_mut() = fields;
    Ok(request)
}

/// The beginning of a body, as much as is shown. The rest is not waited for.
async fn beginning(mut body: StreamedBody) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
        if bytes.len() >= BODY_BYTES_MAX {
            break;
        }
    }
    bytes
}

/// The status and the text of an answer.
async fn told(outcome: Outcome) -> (StatusCode, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(BODY_BYTES_MAX)]).into_owned();
    match outcome {
        Outcome::Replied(reply) => (StatusCode::OK, text(&reply)),
        Outcome::Responded(response) => {
            let status = response.status();
            let body = match response.into_body() {
                ResponseBody::Whole(bytes) => text(&bytes),
                ResponseBody::Streamed(body) => text(&beginning(*body).await),
            };
            (status, body)
        }
        failed => (Code::named(failed.code()).status(), failed.detail()),
    }
}
