//! Starting, stopping and killing hosts.

use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::{PATIENCE, Reply, TestFunction, compiled};

/// A running host. Dropped, it is killed.
pub(crate) struct TestHost {
    pub(crate) data: String,
    pub(crate) admin: String,
    pub(crate) client: reqwest::Client,
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: Arc<Mutex<String>>,
    builder: TestHostBuilder,
}

/// What a host is started with.
#[derive(Clone)]
pub(crate) struct TestHostBuilder {
    state: Arc<TempDir>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    files_max: Option<u64>,
    file_bytes_max: Option<u64>,
    terminal: Option<Arc<File>>,
}

impl TestHostBuilder {
    /// Adds a flag, such as `--instances-max=3`.
    pub(crate) fn flag(mut self, flag: &str) -> TestHostBuilder {
        self.flags.push(flag.to_owned());
        self
    }

    /// Sets a variable of the host's environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> TestHostBuilder {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the host have so many files open.
    pub(crate) fn files_max(mut self, count: u64) -> TestHostBuilder {
        self.files_max = Some(count);
        self
    }

    /// Lets no file of the host grow beyond so many bytes, as if its disk were full.
    pub(crate) fn file_bytes_max(mut self, bytes: u64) -> TestHostBuilder {
        self.file_bytes_max = Some(bytes);
        self
    }

    /// Starts the host in a session of its own, at a terminal.
    pub(crate) fn terminal(mut self, terminal: File) -> TestHostBuilder {
        self.terminal = Some(Arc::new(terminal));
        self
    }

    /// The folder of the host's state.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// The flag for an address: the one that was added, or a port of the system's choice on loopback.
    fn address(&self, name: &str) -> String {
        let own = self.flags.iter().find(|flag| is_address(flag) && flag.starts_with(name));
        own.cloned().unwrap_or_else(|| format!("{name}=127.0.0.1:0"))
    }

    /// The command that starts the host.
    pub(crate) fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_host-under-test");
        let within = |outer: &[&str]| {
            let mut command = Command::new(outer[0]);
            command.args(&outer[1..]).arg(program);
            command
        };
        let full = |bytes| format!(r#"trap '' XFSZ && exec prlimit --fsize={bytes}: "$0" "$@""#);
        let mut command = match (self.files_max, &self.terminal) {
            _ if self.file_bytes_max.is_some() => within(&["sh", "-c", &full(self.file_bytes_max.unwrap_or_default())]),
            (Some(count), _) => within(&["sh", "-c", &format!(r#"ulimit -n {count} && exec "$0" "$@""#)]),
            (None, Some(_)) => within(&["setsid", "--ctty"]),
            (None, None) => Command::new(program),
        };
        let input = match &self.terminal {
            Some(terminal) => Stdio::from(terminal.try_clone().expect("a file more")),
            None => Stdio::null(),
        };
        command
            .args(["serve", "--json", "--state-dir"])
            .arg(self.state.path())
            .args(["--data-addr", "--admin-addr"].map(|name| self.address(name)))
            .args(self.flags.iter().filter(|flag| !is_address(flag)))
            .env_remove("RUST_BACKTRACE")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Starts the host and waits until it listens.
    pub(crate) async fn start(self) -> TestHost {
        let mut child = self.command().spawn().expect("the host starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let kept = log.clone();
        tokio::task::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let mut first = String::new();
        stdout.read_line(&mut first).await.expect("stdout can be read");
        let addresses: Value = serde_json::from_str(&first)
            .unwrap_or_else(|error| panic!("first line {first:?}: {error}; log: {}", log.lock().unwrap()));
        let scheme = if self.flags.iter().any(|flag| flag.starts_with("--tls-")) { "https" } else { "http" };
        // What listens on all addresses is called on loopback.
        let url = |plane: &str| {
            format!("{scheme}://{}", addresses[plane].as_str().expect("an address").replace("0.0.0.0", "127.0.0.1"))
        };
        let client = tests::client();
        TestHost { data: url("data"), admin: url("admin"), client, child, stdout, log, builder: self }
    }
}

fn is_address(flag: &str) -> bool {
    flag.starts_with("--data-addr=") || flag.starts_with("--admin-addr=")
}

impl TestHost {
    /// A host with defaults.
    pub(crate) async fn start() -> TestHost {
        TestHost::builder().start().await
    }

    pub(crate) fn builder() -> TestHostBuilder {
        let state = Arc::new(tempfile::tempdir().expect("a folder for the state"));
        TestHostBuilder {
            state,
            flags: Vec::new(),
            environment: Vec::new(),
            files_max: None,
            file_bytes_max: None,
            terminal: None,
        }
    }

    /// Gives the host the compiled code of a package's component, so that it need not compile that.
    pub(crate) fn has_compiled(&self, package: &str) {
        compiled::give(package, self);
    }

    /// Deploys the component of `package` as `name`, configured by `settings`, and returns a handle to it. The host finds it
    /// compiled.
    pub(crate) async fn deploy(&self, name: &str, package: &str, settings: Value) -> TestFunction {
        self.has_compiled(package);
        let reply = self.put_code(name, tests::component(package), &settings).await;
        assert!(reply.status == 200 || reply.status == 201, "deploy {name}: {reply:?}");
        self.function(name)
    }

    /// A handle to a function, deployed or not.
    pub(crate) fn function(&self, name: &str) -> TestFunction {
        TestFunction::new(self.client.clone(), &self.data, &self.admin, name)
    }

    /// Uploads bytes as a function's code.
    pub(crate) async fn put_code(&self, name: &str, component: Vec<u8>, settings: &Value) -> Reply {
        let url = format!("{}/v1/functions/{name}/code", self.admin);
        let request = self.client.put(url).header("Dormouse-Settings", settings.to_string()).body(component);
        Reply::of(request.send().await.expect("the admin plane answers")).await
    }

    /// `GET` on the admin plane.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        let request = self.client.get(format!("{}{path}", self.admin));
        Reply::of(request.send().await.expect("the admin plane answers")).await
    }

    /// `POST` on the admin plane.
    pub(crate) async fn post(&self, path: &str) -> Reply {
        let request = self.client.post(format!("{}{path}", self.admin));
        Reply::of(request.send().await.expect("the admin plane answers")).await
    }

    /// A counter or gauge of `/metrics`: the sum of all series whose line starts with `prefix`.
    pub(crate) async fn metric(&self, prefix: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let values = text.lines().filter(|line| line.starts_with(prefix));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// All invocation records, oldest first.
    pub(crate) async fn invocations(&self) -> Vec<Value> {
        self.pages("/v1/usage/invocations?limit=10000", "invocations").await
    }

    /// All window records, oldest first.
    pub(crate) async fn windows(&self) -> Vec<Value> {
        self.pages("/v1/usage/windows?limit=10000", "windows").await
    }

    async fn pages(&self, path: &str, key: &str) -> Vec<Value> {
        let mut records = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("{path}{after}")).await.json();
            records.extend(page[key].as_array().expect("records").iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return records,
            }
        }
    }

    /// The whole bill's sums.
    pub(crate) async fn total(&self) -> Value {
        self.get("/v1/usage").await.json()["total"].clone()
    }

    /// What the host wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The same, to be read when the host has ended.
    pub(crate) fn log_kept(&self) -> Arc<Mutex<String>> {
        self.log.clone()
    }

    /// The host's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the host runs")
    }

    /// CPU time that the host uses while `during` goes on: of all its threads that are still there at the end.
    pub(crate) async fn cpu_of_all(&self, during: impl Future<Output = ()>) -> Duration {
        let before = self.schedule(|_| true, 0);
        during.await;
        self.schedule(|_| true, 0).saturating_sub(before)
    }

    /// CPU time that the threads which run guests used so far, to the nanosecond.
    pub(crate) fn worker_cpu(&self) -> Duration {
        self.worker_schedule(0)
    }

    /// How long these threads were ready to run and waited for a CPU.
    pub(crate) fn worker_waits(&self) -> Duration {
        self.worker_schedule(1)
    }

    /// The sum of a field of `schedstat`, over the threads which run guests.
    fn worker_schedule(&self, field: usize) -> Duration {
        self.schedule(|name| ["tokio-rt-worker", "compute"].contains(&name), field)
    }

    fn schedule(&self, named: impl Fn(&str) -> bool, field: usize) -> Duration {
        // A thread may end between the two readings only if it was a blocking one, which runs no guest.
        let schedule = |task: PathBuf| std::fs::read_to_string(task.join("schedstat")).ok();
        let spent = |schedule: String| schedule.split(' ').nth(field)?.parse::<u64>().ok();
        Duration::from_nanos(self.threads(named).into_iter().filter_map(schedule).filter_map(spent).sum())
    }

    /// A figure of memory in its process's status.
    pub(crate) fn memory_kib(&self, figure: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the host runs");
        let line = status.lines().find_map(|line| line.strip_prefix(figure)).expect("the figure is there");
        line.trim_matches([':', '\t', ' ']).split(' ').next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// What its process occupies, in KiB: all pages, and those shared by several mappings only in parts.
    pub(crate) fn occupied_kib(&self) -> (u64, u64) {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).expect("the host runs");
        let figure = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("the figure is there");
            line.trim().split(' ').next().and_then(|kib| kib.parse().ok()).expect("a number")
        };
        (figure("Rss:"), figure("Pss:"))
    }

    /// How often its threads of that name have gone to sleep so far.
    pub(crate) fn waits_of(&self, name: &str) -> u64 {
        let waits = |task: PathBuf| {
            let status = std::fs::read_to_string(task.join("status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse::<u64>().ok()
        };
        self.threads(|own| own == name).into_iter().filter_map(waits).sum()
    }

    /// The folders of its threads with such names.
    fn threads(&self, named: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the host runs");
        let named = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| named(name.trim()));
        tasks.flatten().map(|task| task.path()).filter(named).collect()
    }

    /// Sends a signal to the host's process.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a process has a number");
        kill_process(pid, signal).expect("the host can be signalled");
    }

    /// Waits until the host ended by itself; returns its status and what it printed after the first line.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        let ended = async {
            let status = self.child.wait().await.expect("the host ends");
            self.stdout.read_to_string(&mut rest).await.expect("stdout can be read");
            status
        };
        let status = tokio::time::timeout(PATIENCE, ended).await.expect("the host ends in time");
        (status, rest)
    }

    /// Kills the host where it stands, and starts another on its state.
    pub(crate) async fn kill_and_restart(mut self) -> TestHost {
        self.child.kill().await.expect("the host can be killed");
        self.builder.clone().start().await
    }

    /// Stops the host in order, and starts another on its state.
    pub(crate) async fn restart(self) -> TestHost {
        let builder = self.builder.clone();
        self.signal(Signal::TERM);
        let (status, _) = self.ended().await;
        assert!(status.success(), "{status}");
        builder.start().await
    }

    /// The folder of the host's state.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.builder.state_dir()
    }

    /// The builder that started this host, for another on the same state.
    pub(crate) fn same(&self) -> TestHostBuilder {
        self.builder.clone()
    }

    /// Suspends, resumes, or anything else that is a `POST` to a function.
    pub(crate) async fn order(&self, function: &str, order: &str) {
        let reply = self.post(&format!("/v1/functions/{function}/{order}")).await;
        assert_eq!(reply.status, 200, "{order} {function}: {reply:?}");
    }

    /// Nothing to configure.
    pub(crate) fn defaults() -> Value {
        json!({})
    }
}
