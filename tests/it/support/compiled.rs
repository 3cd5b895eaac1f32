//! Compiled code of the guests, made by one host and given to all others: compiling takes most of the time that tests take.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::TestHost;

/// The files that a host keeps of a component.
pub(crate) struct Compiled(TempDir);

type Cell = Arc<OnceCell<Compiled>>;

/// What hosts keep of a package's component, compiled by the first who asks.
pub(crate) async fn give(package: &str, host: &TestHost) {
    static ALL: LazyLock<Mutex<HashMap<String, Cell>>> = LazyLock::new(Mutex::default);
    let cell = ALL.lock().unwrap().entry(package.to_owned()).or_default().clone();
    cell.get_or_init(|| Compiled::of(package)).await.give_to(host);
}

impl Compiled {
    async fn of(package: &str) -> Compiled {
        let host = TestHost::start().await;
        let reply = host.put_code("first", tests::component(package), &json!({})).await;
        assert_eq!(reply.status, 201, "{package}: {reply:?}");
        let kept = Compiled(tempfile::tempdir().unwrap());
        link_files(&host.state_dir(), kept.0.path());
        kept
    }

    /// A host finds the component compiled, as after a deployment of the same one before.
    fn give_to(&self, host: &TestHost) {
        link_files(self.0.path(), &host.state_dir());
    }
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
        } else if !place.exists() {
            fs::hard_link(&path, &place).unwrap();
        }
    }
}
