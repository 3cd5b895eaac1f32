//! Who comes in at the operators' listener: the holder of an access key or of a certificate, a browser that signed in, or a
//! program on this machine where no key is asked for.

use std::sync::Arc;

use http::{HeaderMap, Method, Uri, header};

use super::Operator;
use super::origin::{check_origin, only};
use super::session::{Session, Sessions, TOKEN};
use crate::config::AdminConfig;
use crate::host::Host;
use crate::web::headers;
use crate::web::problem::{Code, Failure};
use crate::web::service::Client;

/// Recognises operators.
pub struct Entrance {
    host: Arc<Host>,
    /// Whether programs on this machine may come in without showing anything.
    is_open: bool,
    has_client_ca: bool,
    sessions: Sessions,
}

impl Entrance {
    /// As the settings say.
    pub fn new(host: Arc<Host>, config: &AdminConfig) -> Entrance {
        let (is_open, has_client_ca) = (config.is_open, config.client_ca.is_some());
        Entrance { host, is_open, has_client_ca, sessions: Sessions::new(config.sessions_max) }
    }

    /// Who sends a request.
    pub fn recognise(
        &self,
        (method, uri, fields): (&Method, &Uri, &HeaderMap),
        client: Option<&Client>,
    ) -> Result<Operator, Failure> {
        let shown = only(fields, &header::AUTHORIZATION)?.is_some();
        if let Some(token) = headers::bearer(fields)
            && let Some(key) = self.host.access().recognise(token)?
        {
            return Ok(Operator::Key(key));
        }
        if let Some(fingerprint) = client.and_then(|client| client.certificate) {
            return Ok(Operator::Certificate(fingerprint));
        }
        if let Some(session) = self.session(fields).filter(|_| !shown) {
            let is_change = !matches!(*method, Method::GET | Method::HEAD);
            if is_change && !session.is_meant(fields) {
                let detail = format!("a change that shows a session's cookie must show its token too, as `{TOKEN}`");
                return Err(Failure::new(Code::Forbidden, detail));
            }
            return Ok(Operator::Key(session.key));
        }
        if self.is_open {
            return check_origin(uri, fields).map(|()| Operator::Local);
        }
        let certificate = if self.has_client_ca {
            "; or show a certificate that the host's `admin-client-ca` has signed, with `--client-cert`"
        } else {
            ""
        };
        let wrong = if shown { "what was sent is no key of this host: " } else { "" };
        let detail = format!(
            "{wrong}send an access key or the admin token as `Authorization: Bearer KEY`; the command line takes it from `--key`, \
             DORMOUSE_KEY or `dormouse login`{certificate}"
        );
        Err(Failure::new(Code::Unauthorized, detail))
    }

    /// The session that a request shows the cookie of.
    pub fn session(&self, fields: &HeaderMap) -> Option<Session> {
        self.sessions.find(self.host.access(), fields)
    }

    /// Signs in with an access key or the admin token; returns the cookie's value.
    pub fn sign_in(&self, token: &str) -> Result<String, Failure> {
        let key = self.host.access().recognise(token)?;
        let key = key.ok_or_else(|| Failure::new(Code::Unauthorized, "that is no access key of this host"))?;
        Ok(self.sessions.begin(key))
    }

    /// Ends the session that a request shows the cookie of.
    pub fn sign_out(&self, fields: &HeaderMap) {
        self.sessions.end(fields);
    }
}
