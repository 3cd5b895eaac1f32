//! The same answer as the function `hello`, as a `wasi:http` service of WASI 0.3.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::http_compat::{http_from_wasi_request, http_into_wasi_response};

struct Hello;

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let event = http_from_wasi_request(request)?.into_body().collect().await?.to_bytes();
        let reply = format!("Hello, {}!\n", String::from_utf8_lossy(&event));
        let response = http::Response::builder()
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, reply.len())
            .body(reply)
            .map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
        http_into_wasi_response(response)
    }
}

wasip3::http::service::export!(Hello);
