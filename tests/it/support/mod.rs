//! A host under test: a child process on ports that the system chose, with clients for both planes.

mod caller;
mod collector;
mod compiled;
pub(crate) mod frames;
mod function;
mod gate;
mod host;
mod kind;
mod project;
mod reply;
mod server;
mod up;

pub(crate) use caller::Caller;
pub(crate) use collector::{Collector, attribute};
pub(crate) use function::TestFunction;
pub(crate) use gate::Gate;
pub(crate) use host::TestHost;
pub(crate) use kind::{Kind, over_kinds};
pub(crate) use project::{write_example, write_examples};
pub(crate) use reply::Reply;
pub(crate) use server::TestServer;
pub(crate) use up::{Up, dormouse, dormouse_with_tools};

use std::time::Duration;

/// How long anything may take that must happen. Tests await states; they never sleep and hope.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What curl prints. It must succeed.
pub(crate) async fn curl(arguments: &[&str]) -> String {
    let mut curl = tokio::process::Command::new("curl");
    let output = curl.args(["-sS", "--max-time", "30"]).args(arguments).output().await.expect("curl runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Asks again and again until `answer` is there.
pub(crate) async fn eventually<T>(what: &str, mut answer: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match answer().await {
            Ok(found) => return found,
            Err(seen) if tokio::time::Instant::now() > deadline => {
                panic!("{what} did not happen within {PATIENCE:?}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
