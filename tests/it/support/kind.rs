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

/// Runs tests over the kinds, each in a module that names the kind: `every` over all, `sharing` over those whose
/// instances serve several requests at once and have tasks beside them, `http` over those that take requests of HTTP.
macro_rules! over_kinds {
    (every: [$($every:ident),* $(,)?], sharing: [$($sharing:ident),* $(,)?]) => {
        $crate::support::over_kinds!(@ event Event: $($every)* $($sharing)*);
        $crate::support::over_kinds!(@ http_02 Http02: $($every)*);
        $crate::support::over_kinds!(@ http_02_exports Http02Exports: $($every)*);
        $crate::support::over_kinds!(@ http_03 Http03: $($every)* $($sharing)*);
        $crate::support::over_kinds!(@ http_03_exports Http03Exports: $($every)* $($sharing)*);
        $crate::support::over_kinds!(@ python Python: $($every)* $($sharing)*);
        $crate::support::over_kinds!(@ javascript JavaScript: $($every)* $($sharing)*);
        $crate::support::over_kinds!(@ sync Sync: $($every)*);
        $crate::support::over_kinds!(@ c C: $($every)*);
        $crate::support::over_kinds!(@ hono Hono: $($every)*);
    };
    (http: [$($test:ident),* $(,)?]) => {
        $crate::support::over_kinds!(@ http_02 Http02: $($test)*);
        $crate::support::over_kinds!(@ http_03 Http03: $($test)*);
    };
    (@ $module:ident $kind:ident: $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::support::Kind::$kind).await;
                }
            )*
        }
    };
}

pub(crate) use over_kinds;
