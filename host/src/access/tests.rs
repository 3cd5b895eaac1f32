//! Keys as their users see them, on real files.

use tempfile::TempDir;

use super::*;

fn options() -> AccessOptions {
    AccessOptions { admin_token: Some("admin".to_owned()), key_file: None, keys_max: 3, audit_entries_max: 10 }
}

fn open(folder: &TempDir) -> Access {
    Access::open(folder.path(), &options()).unwrap()
}

fn new_key() -> NewKey {
    let functions = ["shop-*".parse().unwrap()].into();
    NewKey {
        scope: Scope { functions, rights: [Right::Invoke].into() },
        description: "for the shop".to_owned(),
        requests_per_second: NonZeroU32::new(50),
        expires: Some(clock::date() + Duration::from_secs(3600)),
    }
}

fn id_of(access: &Access, token: &str) -> Option<KeyId> {
    access.recognise(token).unwrap().map(|key| key.id)
}

#[test]
fn a_key_is_what_it_was_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    let made = access.create(new_key(), None).unwrap();
    assert_eq!(id_of(&access, &made.token), Some(made.key.id));
    access.store_uses().unwrap();
    drop(access);
    let again = open(&folder);
    let key = &again.list()[1];
    assert_eq!((key.id, &key.scope, &key.description), (made.key.id, &new_key().scope, &made.key.description));
    assert_eq!(key.requests_per_second, NonZeroU32::new(50));
    assert_eq!(key.expires.map(clock::microseconds), made.key.expires.map(clock::microseconds));
    assert!(key.last_used().is_some());
    assert_eq!(id_of(&again, &made.token), Some(made.key.id));
}

#[test]
fn neither_the_database_nor_its_log_holds_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    let secret = access.create(new_key(), None).unwrap().token.split_once('.').unwrap().1.to_owned();
    let holds = |name: &str| {
        let bytes = std::fs::read(folder.path().join(name)).unwrap_or_default();
        let raw = hex::decode(&secret).unwrap();
        [secret.as_bytes(), &raw].iter().any(|secret| bytes.windows(secret.len()).any(|part| part == *secret))
    };
    for name in ["access.sqlite", "access.sqlite-wal", "secret.key"] {
        assert!(!holds(name), "{name}");
    }
}

#[test]
fn a_revoked_or_rotated_key_is_worth_nothing_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    let (revoked, rotated, soft) = (
        access.create(new_key(), None).unwrap(),
        access.create(new_key(), None).unwrap(),
        access.create(new_key(), None).unwrap(),
    );
    access.revoke(revoked.key.id).unwrap();
    let renewed = access.rotate(rotated.key.id, Duration::ZERO).unwrap();
    let softly = access.rotate(soft.key.id, Duration::from_secs(60)).unwrap();
    for access in [access, open(&folder)] {
        assert_eq!(access.recognise(&revoked.token).err(), Some(BadKey::Unknown));
        assert_eq!(access.recognise(&rotated.token).err(), Some(BadKey::Unknown));
        assert_eq!(id_of(&access, &renewed.token), Some(rotated.key.id));
        assert_eq!(id_of(&access, &soft.token), Some(soft.key.id), "its grace is not over");
        assert_eq!(id_of(&access, &softly.token), Some(soft.key.id));
        assert!(matches!(access.revoke(revoked.key.id), Err(KeyChangeError::NotFound(_))));
    }
}

#[test]
fn what_has_not_the_form_of_a_key_may_be_meant_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    assert_eq!(id_of(&access, "admin"), Some(KeyId::ADMIN_TOKEN));
    for other in ["", "Admin", "admi", "eyJh.x.y"] {
        assert_eq!(id_of(&access, other), None, "{other}");
    }
    let made = access.create(new_key(), None).unwrap();
    let id = made.key.id.to_string();
    for wrong in ["dmk-", &id, &format!("{id}."), &format!("{id}.00"), &format!("{}0", made.token)] {
        assert_eq!(access.recognise(wrong).err(), Some(BadKey::Unknown), "{wrong}");
    }
}

#[test]
fn keys_have_bounds_and_the_admin_token_is_a_setting() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    for _ in 0..3 {
        access.create(new_key(), None).unwrap();
    }
    let said = |changed: Result<WithSecret, KeyChangeError>| changed.err().unwrap().to_string();
    assert!(said(access.create(new_key(), None)).contains("keys-max"));
    let scope = Scope { functions: [].into(), rights: [].into() };
    let wrong = NewKey { scope, description: "x".repeat(257), expires: Some(UNIX_EPOCH), requests_per_second: None };
    let all = said(access.create(wrong, None));
    for name in ["functions", "rights", "description", "expiresAt"] {
        assert!(all.contains(name), "{all}");
    }
    assert!(said(access.rotate(KeyId::ADMIN_TOKEN, Duration::ZERO)).contains("--admin-token"));
    assert!(matches!(access.revoke(KeyId::ADMIN_TOKEN), Err(KeyChangeError::AdminToken)));
}

#[test]
fn without_its_key_file_a_host_with_keys_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    access.create(new_key(), None).unwrap();
    drop(access);
    std::fs::rename(folder.path().join("secret.key"), folder.path().join("elsewhere.key")).unwrap();
    let error = |options: &AccessOptions| format!("{:#}", Access::open(folder.path(), options).err().unwrap());
    assert!(error(&options()).contains("secret.key") && error(&options()).contains("restore it"));
    let moved = AccessOptions { key_file: Some(folder.path().join("elsewhere.key")), ..options() };
    assert_eq!(Access::open(folder.path(), &moved).unwrap().list().len(), 2);
}

#[test]
fn the_audit_log_names_a_key_from_the_moment_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    let change = Change {
        operator: "local".to_owned(),
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        action: "createKey".to_owned(),
        function: None,
        detail: String::new(),
    };
    let entry = access.note_change(&change).unwrap();
    let made = access.create(new_key(), Some(entry)).unwrap();
    // The host is killed before the answer.
    drop(access);
    let entries = open(&folder).audit(None, 10, |_| true).unwrap();
    assert_eq!((entries[0].detail.as_str(), entries[0].status), (made.key.id.to_string().as_str(), None));
}
