//! Sessions of the console: a browser signs in once with an access key, and shows a cookie from then on.
//!
//! A cookie is sent by itself, so a change that shows one must also show what only a page of this host could read: the
//! session's token against forged requests. A session ends with its key.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::access::{Access, Key};
use crate::clock;

/// On changes that show a cookie: the session's token.
pub const TOKEN: HeaderName = HeaderName::from_static("dormouse-csrf");
const COOKIE: &str = "dormouse-session";
/// How long a session lasts.
const LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// One key has at most this share of all sessions; beyond it its oldest ends, so that nobody ends those of others.
const SHARE_OF_KEY: usize = 20;

/// The sessions of a host. They end with it.
pub struct Sessions {
    max: usize,
    /// By the digest of the cookie, so that looking one up takes the same time for all.
    kept: Mutex<HashMap<[u8; 32], Session>>,
}

/// Somebody who signed in.
#[derive(Clone)]
pub struct Session {
    /// With this key.
    pub key: Arc<Key>,
    token: String,
    ends: SystemTime,
}

impl Session {
    /// What changes must show.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether a request shows the token.
    pub fn is_meant(&self, fields: &HeaderMap) -> bool {
        let shown = fields.get(TOKEN).map(HeaderValue::as_bytes).unwrap_or_default();
        shown.ct_eq(self.token.as_bytes()).into()
    }
}

impl Sessions {
    /// At most so many at once; beyond them the oldest ends.
    pub fn new(max: usize) -> Sessions {
        Sessions { max, kept: Mutex::default() }
    }

    /// Begins a session, and returns the cookie's value.
    pub fn begin(&self, key: Arc<Key>) -> String {
        let cookie = secret();
        let session = Session { key, token: secret(), ends: clock::date() + LASTS };
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        kept.retain(|_, session| session.ends > clock::date());
        let own = kept.values().filter(|other| other.key.id == session.key.id).count();
        let own_max = self.max.div_ceil(SHARE_OF_KEY);
        let is_in_the_way = |other: &Session| own < own_max || other.key.id == session.key.id;
        if kept.len() >= self.max || own >= own_max {
            let candidates = kept.iter().filter(|(_, other)| is_in_the_way(other));
            if let Some(oldest) = candidates.min_by_key(|(_, other)| other.ends).map(|(digest, _)| *digest) {
                kept.remove(&oldest);
            }
        }
        kept.insert(digest(&cookie), session);
        cookie
    }

    /// The session of a request. Cookies that are none do not matter: whatever else has this machine's name may have set them.
    /// Of two sessions neither counts, for the same reason.
    pub fn find(&self, access: &Access, fields: &HeaderMap) -> Option<Session> {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        let digests: HashSet<_> = cookies(fields).map(digest).filter(|digest| kept.contains_key(digest)).collect();
        let (Some(digest), 1) = (digests.iter().next(), digests.len()) else { return None };
        let is_over = |session: &Session| session.ends <= clock::date() || !access.is_current(&session.key);
        if kept.get(digest).is_some_and(is_over) {
            kept.remove(digest);
        }
        kept.get(digest).cloned()
    }

    /// Ends the sessions of a request.
    pub fn end(&self, fields: &HeaderMap) {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        for cookie in cookies(fields) {
            kept.remove(&digest(cookie));
        }
    }
}

/// The field that gives a browser its cookie, or takes it away.
pub fn set_cookie(cookie: Option<&str>, has_tls: bool) -> HeaderValue {
    let secure = if has_tls { "; Secure" } else { "" };
    let (value, seconds) = cookie.map_or(("", 0), |cookie| (cookie, LASTS.as_secs()));
    let text = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// Takes sessions' cookies out of a request for a function. Browsers do not tell ports apart, so they send them there too.
pub fn withhold(fields: &mut HeaderMap) {
    if !fields.contains_key(header::COOKIE) || cookies(fields).next().is_none() {
        return;
    }
    let is_other = |pair: &&str| !pair.trim().strip_prefix(COOKIE).is_some_and(|rest| rest.starts_with('='));
    let values = fields.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let left: Vec<String> =
        values.map(|value| value.split(';').filter(is_other).collect::<Vec<_>>().join(";")).collect();
    fields.remove(header::COOKIE);
    for value in left.iter().map(|value| value.trim()).filter(|value| !value.is_empty()) {
        fields.extend(HeaderValue::from_str(value).ok().map(|value| (header::COOKIE, value)));
    }
}

/// The cookies of a request that may be sessions'.
fn cookies(fields: &HeaderMap) -> impl Iterator<Item = &str> {
    let pairs = fields.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// 244 bits that nobody can guess.
fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn digest(cookie: &str) -> [u8; 32] {
    Sha256::digest(cookie).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::access::AccessOptions;

    fn fields(name: HeaderName, value: &str) -> HeaderMap {
        [(name, HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    fn access(folder: &Path) -> (Access, Arc<Key>) {
        let admin_token = Some("a-token-of-an-operator".to_owned());
        let options = AccessOptions { admin_token, key_file: None, keys_max: 10, audit_entries_max: 10 };
        let access = Access::open(folder, &options).unwrap();
        let key = access.recognise("a-token-of-an-operator").unwrap().unwrap();
        (access, key)
    }

    #[test]
    fn a_session_is_found_by_its_cookie_and_meant_by_its_token() {
        let folder = tempfile::tempdir().unwrap();
        let (access, key) = access(folder.path());
        let sessions = Sessions::new(1000);
        let cookie = sessions.begin(key.clone());
        let shown = fields(header::COOKIE, &format!("a=b; {COOKIE}={cookie}"));
        let session = sessions.find(&access, &shown).unwrap();
        assert_eq!(session.key.id, key.id);
        assert!(session.is_meant(&fields(TOKEN, session.token())));
        assert!(!session.is_meant(&shown) && !session.is_meant(&fields(TOKEN, "guessed")));
        assert!(sessions.find(&access, &fields(header::COOKIE, &format!("{COOKIE}=x"))).is_none());
        sessions.end(&shown);
        assert!(sessions.find(&access, &shown).is_none());
    }

    #[test]
    fn other_cookies_do_not_matter_and_of_two_sessions_neither_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (access, key) = access(folder.path());
        let sessions = Sessions::new(1000);
        let (one, other) = (sessions.begin(key.clone()), sessions.begin(key));
        let found = |text: String| sessions.find(&access, &fields(header::COOKIE, &text)).is_some();
        assert!(found(format!("{COOKIE}=junk; {COOKIE}={one}")) && found(format!("{COOKIE}={one}; {COOKIE}={one}")));
        assert!(!found(format!("{COOKIE}={one}; {COOKIE}={other}")));
    }

    #[test]
    fn functions_do_not_get_sessions() {
        let left = |text: &str| {
            let mut fields = fields(header::COOKIE, text);
            withhold(&mut fields);
            fields.get(header::COOKIE).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(left(&format!("a=b; {COOKIE}=x; c=d")).as_deref(), Some("a=b; c=d"));
        assert_eq!(left(&format!("{COOKIE}=x")), None);
        assert_eq!(left(&format!("{COOKIE}s=x; a=b")).as_deref(), Some(format!("{COOKIE}s=x; a=b").as_str()));
    }

    #[test]
    fn a_session_too_many_ends_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let (access, key) = access(folder.path());
        let sessions = Sessions::new(1000);
        let cookies: Vec<String> = (0..=50).map(|_| sessions.begin(key.clone())).collect();
        let is_there =
            |cookie: &String| sessions.find(&access, &fields(header::COOKIE, &format!("{COOKIE}={cookie}"))).is_some();
        assert_eq!(cookies.iter().filter(|cookie| is_there(cookie)).count(), 50);
        assert!(!is_there(&cookies[0]) && is_there(&cookies[50]));
    }
}
