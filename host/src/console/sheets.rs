//! The bill as CSV, for spreadsheets: all of it, however long it is.

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{HeaderValue, Uri, header};
use serde::de::DeserializeOwned;

use super::bill::{SHEETS, Shown};
use super::parts::segment;
use super::{Seen, asked};
use crate::csv::{self, Row};
use crate::ledger::{InvocationPage, InvocationRecord, Usage, UsageGroup, WindowPage, WindowRecord};
use crate::web::problem::{Code, Failure};

/// Windows or requests that the API is asked for at once.
const RECORDS: u32 = 1000;

/// What the API answers to a question for rows.
trait Page: DeserializeOwned + Send + 'static {
    type Record: Row;
    /// Its records, and where it goes on.
    fn parts(self) -> (Vec<Self::Record>, Option<String>);
}

impl Page for Usage {
    type Record = UsageGroup;
    fn parts(self) -> (Vec<UsageGroup>, Option<String>) {
        (self.groups, None)
    }
}

impl Page for WindowPage {
    type Record = WindowRecord;
    fn parts(self) -> (Vec<WindowRecord>, Option<String>) {
        (self.windows, self.next)
    }
}

impl Page for InvocationPage {
    type Record = InvocationRecord;
    fn parts(self) -> (Vec<InvocationRecord>, Option<String>) {
        (self.invocations, self.next)
    }
}

/// What a link to a sheet leads to.
pub(super) async fn answer(seen: Seen, uri: &Uri) -> Result<http::Response<Body>, Failure> {
    let wrong = || {
        let names: Vec<&str> = SHEETS.iter().map(|(name, _)| *name).collect();
        let detail =
            format!("`of` must be one of {}, `days` 1 to 366, and `function` a function's name", names.join(", "));
        Failure::new(Code::InvalidRequest, detail)
    };
    let shown = Shown::of(|name| asked(uri, name)).ok_or_else(wrong)?;
    let of = asked(uri, "of").unwrap_or_default();
    let records = format!("&newest=true&limit={RECORDS}");
    let table = match of.as_str() {
        "functions" => table::<Usage>(seen, shown.path("", "&group=function")).await?,
        "time" => table::<Usage>(seen, shown.path("", &format!("&group={}", shown.steps()))).await?,
        "windows" => table::<WindowPage>(seen, shown.path("/windows", &records)).await?,
        "requests" => table::<InvocationPage>(seen, shown.path("/invocations", &records)).await?,
        _ => return Err(wrong()),
    };
    let mut response = http::Response::new(table);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    if let Ok(named) = HeaderValue::from_str(&format!("attachment; filename=\"bill-{of}.csv\"")) {
        fields.insert(header::CONTENT_DISPOSITION, named);
    }
    Ok(response)
}

/// The rows of the first page and of those behind it, each read when the browser has taken the one before.
async fn table<P: Page>(seen: Seen, path: String) -> Result<Body, Failure> {
    let unwritten = |error: anyhow::Error| Failure::new(Code::Internal, error.to_string());
    let (records, next) = seen.console.api.get::<P>(&seen.operator, &path).await?.parts();
    let mut begun = csv::head::<P::Record>().map_err(unwritten)?;
    begun += &csv::rows(&records).map_err(unwritten)?;
    let later = stream::try_unfold(next, move |next| {
        let (seen, path) = (seen.clone(), path.clone());
        async move {
            let Some(after) = next else { return Ok(None) };
            let path = format!("{path}&after={}", segment(&after));
            let asked = seen.console.api.get::<P>(&seen.operator, &path).await;
            let (records, next) = asked.map_err(|failure| anyhow::anyhow!(failure.detail))?.parts();
            Ok(Some((Bytes::from(csv::rows(&records)?), next)))
        }
    });
    let begun = stream::iter([Ok::<_, anyhow::Error>(Bytes::from(begun))]);
    Ok(Body::from_stream(begun.chain(later)))
}
