//! Compiled code of the guests, made by one host and given to all others: compiling takes most of the time that tests
//! take. It is kept in the cache, so a guest is compiled once for each state of its code and of the engine.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use serde_json::json;

use super::TestHost;

/// What a host's catalog knows of compiled code, in a file of the cache: component, engine and SHA-256 a line.
const CHECKSUMS: &str = "checksums";

type Cell = Arc<OnceLock<PathBuf>>;

/// Gives a host what hosts keep of a package's component, as after an earlier deployment of the same one. Blocks while
/// it is compiled, which is done by the first who asks.
pub(crate) fn give(package: &str, host: &TestHost) {
    static ALL: LazyLock<Mutex<HashMap<String, Cell>>> = LazyLock::new(Mutex::default);
    let cell = ALL.lock().unwrap().entry(package.to_owned()).or_default().clone();
    let kept = cell.get_or_init(|| kept(package, &engine_of(host)));
    link_files(kept, &host.state_dir());
    let checksums = fs::read_to_string(kept.join(CHECKSUMS)).expect("it was made with the code");
    for line in checksums.lines() {
        let values = rusqlite::params_from_iter(line.split(' '));
        catalog(host).execute("INSERT OR REPLACE INTO code VALUES (?1, ?2, ?3)", values).expect("the row is there");
    }
}

fn catalog(host: &TestHost) -> rusqlite::Connection {
    rusqlite::Connection::open(host.state_dir().join("catalog.sqlite")).expect("a host has a catalog")
}

fn checksums(host: &TestHost) -> String {
    let catalog = catalog(host);
    let mut rows = catalog.prepare("SELECT component || ' ' || engine || ' ' || sha256 || char(10) FROM code").unwrap();
    rows.query_map((), |row| row.get::<_, String>(0)).unwrap().map(|line| line.expect("a line")).collect()
}

/// The name of the host's engine: of the folder that its compiled code is in.
fn engine_of(host: &TestHost) -> String {
    let engines = fs::read_dir(host.state_dir().join("compiled")).expect("a host has a folder for compiled code");
    engines.flatten().map(|engine| engine.file_name().to_string_lossy().into_owned()).collect()
}

fn kept(package: &str, engine: &str) -> PathBuf {
    let component = tests::component(package);
    let hash = tests::cache::hash(&[engine.as_bytes(), &component, CHECKSUMS.as_bytes()], &[]);
    tests::cache::entry(&format!("compiled/{package}"), hash, |folder| {
        // On a thread of its own, because the caller's is in the middle of a test's runtime.
        let compiling = || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let host = TestHost::start().await;
                let reply = host.put_code("first", component, &json!({})).await;
                assert_eq!(reply.status, 201, "{package}: {reply:?}");
                link_files(&host.state_dir(), folder);
                fs::write(folder.join(CHECKSUMS), checksums(&host)).unwrap();
            });
        };
        std::thread::scope(|scope| scope.spawn(compiling).join()).expect("it compiles");
    })
}

/// Links the files of components and their code, which hosts never change.
fn link_files(from: &Path, to: &Path) {
    for folder in ["components", "compiled"] {
        link_folder(&from.join(folder), &to.join(folder));
    }
}

fn link_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        let place = to.join(name);
        if path.is_dir() {
            link_folder(&path, &place);
        } else if !place.exists() && fs::hard_link(&path, &place).is_err() {
            // The cache is on another file system.
            fs::copy(&path, &place).unwrap();
        }
    }
}
