//! Reading bodies: JSON up to a size and within a time, and code with its share of the memory for uploads.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::Fc;
use super::fault::Fault;
use crate::room::Share;
use crate::web::linger::Lingering;

/// The largest body without code.
pub(super) const JSON_BYTES_MAX: usize = 2 << 20;
/// How long an upload waits for memory, and how long it may take; a body without code has the shorter time.
const UPLOAD_WAIT: Duration = Duration::from_secs(60);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);

impl Fc {
    /// Bytes of a body with code: base64 makes four of three.
    pub(super) fn code_bytes_max(&self) -> usize {
        self.config.component_bytes_max / 3 * 4 + JSON_BYTES_MAX
    }

    /// Reads a body. One that is large holds code, and has its share of the memory for that.
    pub(super) async fn read_code(
        &self,
        fields: &HeaderMap,
        body: Lingering,
        bytes_max: usize,
    ) -> Result<(Bytes, Share), Fault> {
        let announced = fields.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|bytes: usize| bytes > bytes_max) {
            return Err(Fault::too_large(bytes_max));
        }
        let tasks = self.host.tasks();
        let mut body = std::pin::pin!(Limited::new(body, bytes_max));
        let mut bytes = Vec::new();
        let mut share: Share = None;
        let read = async {
            while let Some(frame) = body.as_mut().frame().await {
                match frame {
                    Ok(frame) => {
                        if let Some(data) = frame.data_ref() {
                            if share.is_none() && bytes.len() + data.len() > JSON_BYTES_MAX {
                                // It is code: many clients do not announce how much.
                                let wanted = announced.unwrap_or(bytes_max).min(self.room.bytes());
                                let found = self.room.wait(wanted, UPLOAD_WAIT).await;
                                share = found
                                    .ok_or_else(|| Fault::unavailable("too many uploads wait for the compiler"))?;
                            }
                            bytes.extend_from_slice(data);
                        }
                    }
                    Err(error) if error.is::<LengthLimitError>() => return Err(Fault::too_large(bytes_max)),
                    Err(_) => return Err(Fault::invalid("the body ended before its announced length")),
                }
            }
            Ok(())
        };
        let within = if bytes_max > JSON_BYTES_MAX { UPLOAD_TIMEOUT } else { UPLOAD_WAIT };
        tokio::select! {
            read = tokio::time::timeout(within, read) => {
                read.map_err(|_| Fault::invalid("the body did not arrive in time"))??;
            }
            () = tasks.drained() => return Err(Fault::unavailable("the host is shutting down")),
        }
        Ok((bytes.into(), share))
    }
}
