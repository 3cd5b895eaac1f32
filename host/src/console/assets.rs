//! Styles and scripts, which are part of the program.

use axum::body::Body;
use http::{HeaderValue, StatusCode, header};

/// Each with its type.
const FILES: [(&str, &str, &str); 5] = [
    ("console.css", "text/css; charset=utf-8", include_str!("assets/console.css")),
    ("console.js", "text/javascript; charset=utf-8", include_str!("assets/console.js")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("uPlot.css", "text/css; charset=utf-8", include_str!("assets/uplot/uPlot.min.css")),
    ("uPlot.js", "text/javascript; charset=utf-8", include_str!("assets/uplot/uPlot.iife.min.js")),
];

pub(super) fn answer(file: &str) -> http::Response<Body> {
    let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == file) else {
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = http::Response::new(Body::from(*text));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Pages name the program's version with each file.
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    response
}
