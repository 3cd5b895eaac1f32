//! The kinds of functions, and tests that run over all of them.

use serde_json::{Value, json};

use super::{TestFunction, TestHost};

/// A kind of function. Each has a guest that understands the scripts of `guest-script`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Events, through the SDK.
    Event,
    /// `wasi:http` of WASI 0.2. It blocks, and its hooks are requests.
    Http02,
    /// The same, with hooks that are exports.
    Http02Exports,
    /// `wasi:http` of WASI 0.3. Its hooks are requests.
    Http03,
    /// The same, with hooks that are exports.
    Http03Exports,
    /// Events, in Python: a large component, whose instances copy memory as they write to it.
    Python,
    /// Events, in JavaScript.
    JavaScript,
    /// Events, by exports without `async`. It blocks.
    Sync,
    /// Events, in C. It has one task, and blocks.
    C,
    /// `wasi:http` of WASI 0.2, in JavaScript: a web application as componentize-js makes it. Its hooks are requests.
    Hono,
}

impl Kind {
    /// The kind that a module of tests is named after.
    pub(crate) fn named(module: &str) -> Kind {
        match module {
            "event" => Kind::Event,
            "sync" => Kind::Sync,
            "http_02" => Kind::Http02,
            "http_02_exports" => Kind::Http02Exports,
            "http_03" => Kind::Http03,
            "http_03_exports" => Kind::Http03Exports,
            "python" => Kind::Python,
            "javascript" => Kind::JavaScript,
            "c" => Kind::C,
            "hono" => Kind::Hono,
            _ => panic!("no kind of function is called {module}"),
        }
    }

    /// Deploys the kind's guest with all its hooks, unless `settings` say otherwise.
    pub(crate) async fn deploy(self, host: &TestHost, name: &str, mut settings: Value) -> TestFunction {
        if matches!(self, Kind::Http02 | Kind::Http03 | Kind::Hono) {
            for hook in ["initializer", "preFreeze", "preStop"] {
                let handler = &mut settings["lifecycle"][hook]["handler"];
                if handler.is_null() {
                    // No export has this name, so the hook is a request.
                    *handler = json!("index.hook");
                }
            }
        }
        self.deploy_as_it_is(host, name, settings).await
    }

    /// Deploys the kind's guest with those of its hooks that are exports, and what `settings` say.
    pub(crate) async fn deploy_as_it_is(self, host: &TestHost, name: &str, settings: Value) -> TestFunction {
        host.deploy(name, self.package(), settings).await
    }

    fn package(self) -> &'static str {
        match self {
            Kind::Event => "guest-probe",
            Kind::Http02 | Kind::Http02Exports => "guest-http-02",
            Kind::Http03 | Kind::Http03Exports => "guest-http-03",
            Kind::Python => "guest-python",
            Kind::JavaScript => "guest-javascript",
            Kind::Sync => "guest-sync",
            Kind::C => "guest-c",
            Kind::Hono => "guest-hono",
        }
    }

    /// Iterations of `work` that take about a second: many epochs.
    pub(crate) fn work(self) -> u64 {
        if matches!(self, Kind::Python | Kind::JavaScript | Kind::Hono) { 1_500_000 } else { 600_000_000 }
    }

    /// What the host calls the end that the step `trap` makes: JavaScript has nothing that is undefined.
    pub(crate) fn trap(self) -> &'static str {
        if matches!(self, Kind::JavaScript | Kind::Hono) { "exit" } else { "unreachable" }
    }
}

/// Runs tests over the kinds, in modules that name first the group and then the kind, such as `hooks::http_02`.
///
/// A kind runs a group's tests by default if the host takes a path for it that no other kind of the row takes; guests in
/// other languages take the paths of `event` and `http_02`. All other cells are ignored unless asked for with
/// `--include-ignored`.
///
/// | group       | shows                                              | by default                                          |
/// |-------------|----------------------------------------------------|-----------------------------------------------------|
/// | `whole`     | a life from the initializer to pre-stop, and its bad ends | every kind, for its SDK and its runtime      |
/// | `pool`      | what pool and lifecycle decide, whoever the guest is | `event`                                           |
/// | `calls`     | how a call is made, metered, suspended and ended   | each way of calling: event, sync, HTTP 0.2 and 0.3  |
/// | `hooks`     | what hooks do and how they end                     | the same, with hooks as requests and as exports     |
/// | `sharing`   | several requests and tasks in one instance         | event and HTTP 0.3, of those that can               |
/// | `both`      | what only HTTP has                                 | HTTP 0.2 and 0.3, the only ones whose guests have it |
macro_rules! over_kinds {
    ($($group:ident: $tests:tt),* $(,)?) => {
        $(mod $group {
            $crate::support::over_kinds!(@$group $tests);
        })*
    };
    (@whole $tests:tt) => {
        $crate::support::over_kinds!(@@ $tests
            [event sync http_02 http_02_exports http_03 http_03_exports python javascript c hono] []);
    };
    (@pool $tests:tt) => {
        $crate::support::over_kinds!(@@ $tests
            [event] [sync http_02 http_02_exports http_03 http_03_exports python javascript c hono]);
    };
    (@calls $tests:tt) => {
        $crate::support::over_kinds!(@@ $tests
            [event sync http_02 http_03] [http_02_exports http_03_exports python javascript c hono]);
    };
    (@hooks $tests:tt) => {
        $crate::support::over_kinds!(@@ $tests
            [event sync http_02 http_02_exports http_03 http_03_exports] [python javascript c hono]);
    };
    (@sharing $tests:tt) => {
        $crate::support::over_kinds!(@@ $tests [event http_03] [http_03_exports python javascript]);
    };
    (@both $tests:tt) => {
        $crate::support::over_kinds!(@@ $tests [http_02 http_03] []);
    };
    (@@ $tests:tt [$($chosen:ident)*] [$($other:ident)*]) => {
        $(mod $chosen {
            $crate::support::over_kinds!(@cells $chosen $tests);
        })*
        $(mod $other {
            $crate::support::over_kinds!(@ignored $other $tests);
        })*
    };
    (@cells $kind:ident [$($test:ident),* $(,)?]) => {
        $(
            #[tokio::test]
            async fn $test() {
                super::super::$test($crate::support::Kind::named(stringify!($kind))).await;
            }
        )*
    };
    (@ignored $kind:ident [$($test:ident),* $(,)?]) => {
        $(
            #[tokio::test]
            #[ignore = "takes the same path as another kind; run it with --include-ignored"]
            async fn $test() {
                super::super::$test($crate::support::Kind::named(stringify!($kind))).await;
            }
        )*
    };
}

pub(crate) use over_kinds;
