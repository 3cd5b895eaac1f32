//! Files beside the APIs: code that is fetched from a signed address, and code that is uploaded in a request of its own, as the
//! deployment tools do it where Function Compute has an object store.
//!
//! The name of an upload comes from this host, carries its end and a signature, and is all that one needs to write to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use ring::hmac;
use serde_json::json;
use uuid::Uuid;

use super::Fc;
use super::code;
use super::fault::Fault;
use super::request::{Asked, Reply};
use crate::catalog::Revision;
use crate::clock;
use crate::private;

/// Where code is fetched.
pub(super) const CODE_PATH: &str = "/fc-code/";
/// What the names of uploads begin with.
const UPLOAD_PREFIX: &str = "fc-upload-";
/// How long an address to fetch code from works.
const FETCHED_WITHIN: Duration = Duration::from_secs(15 * 60);
/// How long an upload can be made, and stays until it is deployed.
const UPLOADED_WITHIN: Duration = Duration::from_secs(60 * 60);

/// The folder of uploads, and what they may take together.
pub(super) struct Uploads {
    folder: PathBuf,
    bytes_max: u64,
}

impl Uploads {
    /// Opens the folder; what was left there is gone.
    pub(super) fn open(folder: PathBuf, bytes_max: u64) -> anyhow::Result<Uploads> {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
        }
        Ok(Uploads { folder, bytes_max })
    }

    /// Stores an upload. It blocks.
    fn put(&self, name: &str, bytes: &[u8], now: SystemTime) -> anyhow::Result<Result<(), Fault>> {
        private::folder(&self.folder)?;
        let mut taken = 0;
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let is_old = ends(&entry.file_name().to_string_lossy()).is_none_or(|end| end < now);
            if is_old {
                fs::remove_file(entry.path())?;
            } else {
                taken += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        if taken + bytes.len() as u64 > self.bytes_max {
            return Ok(Err(Fault::unavailable("too many uploads wait to be deployed (`fc-uploads-max-mb`)")));
        }
        fs::write(self.folder.join(name), bytes)?;
        Ok(Ok(()))
    }
}

/// When an upload of this name ends.
fn ends(name: &str) -> Option<SystemTime> {
    let seconds = u64::from_str_radix(name.strip_prefix(UPLOAD_PREFIX)?.split('-').next()?, 16).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn key(fc: &Fc) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &fc.host.access().file_secret())
}

fn signed(fc: &Fc, text: &str) -> String {
    hex::encode(hmac::sign(&key(fc), text.as_bytes()))
}

/// Whether a signature in hexadecimal digits is that of a text.
fn is_signed(fc: &Fc, text: &str, signature: &str) -> bool {
    hex::decode(signature).is_ok_and(|signature| hmac::verify(&key(fc), text.as_bytes(), &signature).is_ok())
}

/// Where the code of a revision can be fetched for a while.
pub(super) fn address(fc: &Fc, asked: &Asked, revision: &Revision) -> String {
    let path = format!("{CODE_PATH}{}/{}", revision.function, revision.id.0);
    let expires = seconds(clock::date() + FETCHED_WITHIN);
    let signature = signed(fc, &format!("{path}\n{expires}"));
    format!("{}://{}{path}?expires={expires}&signature={signature}", fc.reach.scheme(), asked.host)
}

/// Answers such an address.
pub(super) async fn fetch(fc: &Fc, uri: &Uri) -> Result<Reply, Fault> {
    let param = |name: &str| {
        let mut pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        pairs.find(|(own, _)| own == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let (expires, signature) = (param("expires"), param("signature"));
    if is_over(&expires, clock::date()) || !is_signed(fc, &format!("{}\n{expires}", uri.path()), &signature) {
        return Err(Fault::denied(
            "the address is not one of this host's, or its time is over; ask for the code again",
        ));
    }
    let gone = || Fault::not_found("FunctionNotFound", "the code was replaced or deleted meanwhile");
    let (name, id) = uri.path().strip_prefix(CODE_PATH).and_then(|rest| rest.split_once('/')).ok_or_else(gone)?;
    let function = fc.host.function(name).ok_or_else(gone)?;
    let revision = function.revisions().find(|revision| revision.id.0.to_string() == id).ok_or_else(gone)?;
    let file = fc.host.component_file(revision);
    let zip = fc.host.tasks().blocking(move || code::pack(&file)).await??;
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    Ok(Reply::bytes(zip.into()).with(fields))
}

/// Whether the time of an address is over.
fn is_over(expires: &str, now: SystemTime) -> bool {
    expires.parse().is_ok_and(|expires: u64| expires < seconds(now))
}

/// Says where code can be uploaded.
pub(super) fn token(fc: &Fc) -> Reply {
    let end = clock::date() + UPLOADED_WITHIN;
    let text = format!("{UPLOAD_PREFIX}{:x}-{}", seconds(end), Uuid::new_v4().simple());
    let name = format!("{text}-{}", signed(fc, &text));
    Reply::json(json!({
        "credentials": {
            "AccessKeyId": "upload", "AccessKeySecret": "upload", "SecurityToken": "upload",
            "Expiration": humantime::format_rfc3339_seconds(end).to_string(),
        },
        "ossRegion": "local", "ossBucket": "fc-code", "objectName": name, "codeSizeLimit": fc.config.component_bytes_max,
    }))
}

/// The name of the upload that a path is for, if it is one that this host gave out.
pub(super) fn upload_of(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| name.starts_with(UPLOAD_PREFIX))
}

/// Refuses a name that this host did not give out, or whose time is over.
pub(super) fn check(fc: &Fc, name: &str) -> Result<(), Fault> {
    let parts = name.rsplit_once('-').filter(|(text, signature)| is_signed(fc, text, signature));
    if parts.is_none() || ends(name).is_none_or(|end| end < clock::date()) {
        let message = "this is no place for an upload, or its time is over; ask for another one with GET /2016-08-15/tempBucketToken";
        return Err(Fault::denied(message));
    }
    Ok(())
}

/// Stores an upload.
pub(super) async fn put(fc: &Fc, name: &str, bytes: Bytes) -> Result<Reply, Fault> {
    let etag = format!("\"{}\"", code::checksum(&bytes));
    let (uploads, name) = (fc.uploads.clone(), name.to_owned());
    fc.host.tasks().blocking(move || uploads.put(&name, &bytes, clock::date())).await???;
    let mut fields = HeaderMap::new();
    fields.extend(HeaderValue::from_str(&etag).ok().map(|etag| (header::ETAG, etag)));
    Ok(Reply::bytes(Bytes::new()).with(fields))
}

/// What was uploaded under a name, `account/object`; it stays until its time is over, for a client that tries again.
pub(super) async fn take(fc: &Fc, object: &str) -> Result<Vec<u8>, Fault> {
    let name = upload_of(object).unwrap_or_default();
    let missing = || {
        let shown: String = object.chars().take(128).collect();
        Fault::invalid(format!(
            "`code.ossObjectName` is '{shown}', which was not uploaded to this host: it has no other object store. Send the zip as \
             `code.zipFile`"
        ))
    };
    check(fc, name).map_err(|_| missing())?;
    let path: PathBuf = fc.uploads.folder.join(Path::new(name));
    let read = fc.host.tasks().blocking(move || fs::read(path)).await?;
    read.map_err(|_| missing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_over_after_its_time() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        for (expires, is_past) in [("999", true), ("1000", false), ("1001", false), ("soon", false)] {
            assert_eq!(is_over(expires, now), is_past, "{expires}");
        }
    }
}
