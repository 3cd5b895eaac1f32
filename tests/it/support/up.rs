//! The program as people start it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::{PATIENCE, Reply};

/// The program, with no host of its own.
pub(crate) fn dormouse() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-under-test"));
    command.stdin(Stdio::null()).kill_on_drop(true).env_remove("RUST_BACKTRACE");
    // Some users build everything into one folder; the manifest still says where components are.
    command.env("CARGO_TARGET_DIR", tests::target().join("elsewhere"));
    command
}

/// The same, with all toolchains in front of `PATH`.
pub(crate) fn dormouse_with_tools() -> Command {
    let mut path =
        Path::new(env!("CARGO_BIN_EXE_wit-bindgen")).parent().expect("it is in a folder").as_os_str().to_owned();
    path.push(":");
    path.push(tests::languages::path());
    let mut command = dormouse();
    command.env("PATH", path);
    command
}

/// A running `up`.
pub(crate) struct Up {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) functions: Vec<Value>,
    /// Where the planes are.
    pub(crate) addresses: Value,
}

impl Up {
    /// Runs `up --json` on a project and waits until it serves.
    pub(crate) async fn start(project: &Path, state: &Path, flags: &[&str]) -> Up {
        let mut flags: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
        flags.push(project.as_os_str());
        Up::with(state, &flags).await
    }

    /// The same with a file of Serverless Devs.
    pub(crate) async fn template(file: &Path, state: &Path) -> Up {
        Up::with(state, &[OsStr::new("--template"), file.as_os_str()]).await
    }

    async fn with(state: &Path, arguments: &[&OsStr]) -> Up {
        let mut command = dormouse_with_tools();
        command.args(["up", "--json", "--data-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--state-dir"]);
        command.arg(state).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).await.expect("the addresses");
        let addresses = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        line.clear();
        stdout.read_line(&mut line).await.expect("the functions");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert_eq!(ready["ready"], true);
        let functions = ready["functions"].as_array().expect("functions").clone();
        Up { child, stdout, functions, addresses }
    }

    /// Where a function is served.
    pub(crate) fn url(&self, name: &str) -> String {
        let function = self.functions.iter().find(|function| function["name"] == name).expect("the function is there");
        function["url"].as_str().expect("a URL").to_owned()
    }

    pub(crate) async fn invoke(&self, name: &str, event: &'static str) -> Reply {
        let request = tests::client().post(self.url(name)).body(event);
        Reply::of(request.send().await.expect("an answer")).await
    }

    /// Sends Ctrl-C, and returns what it said about its end.
    pub(crate) async fn interrupt(mut self) -> Value {
        let pid = Pid::from_raw(self.child.id().expect("it runs") as i32).expect("a process has a number");
        kill_process(pid, Signal::INT).expect("it can be signalled");
        let mut rest = String::new();
        let ended = async {
            self.stdout.read_to_string(&mut rest).await.expect("stdout can be read");
            self.child.wait().await.expect("it ends")
        };
        let status = tokio::time::timeout(PATIENCE, ended).await.expect("it ends in time");
        assert!(status.success(), "{status}");
        serde_json::from_str(&rest).unwrap_or_else(|error| panic!("{rest:?}: {error}"))
    }
}
