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
    /// `wasi:http` of WASI 0.3. Its initializer is a request, the other hooks are exports.
    Http03,
}

impl Kind {
    /// Deploys the kind's guest with all its hooks, unless `settings` say otherwise.
    pub(crate) async fn deploy(self, host: &TestHost, name: &str, mut settings: Value) -> TestFunction {
        let (package, requests): (_, &[&str]) = match self {
            Kind::Event => ("guest-probe", &[]),
            Kind::Http02 => ("guest-http-02", &["initializer", "preFreeze", "preStop"]),
            Kind::Http03 => ("guest-http-03", &["initializer"]),
        };
        for hook in requests {
            let handler = &mut settings["lifecycle"][hook]["handler"];
            if handler.is_null() {
                *handler = json!("index.hook");
            }
        }
        host.deploy(name, package, settings).await
    }
}

/// Runs tests over the kinds, each in a module that names the kind: `every` over all, `sharing` over those whose
/// instances serve several requests at once and have tasks beside them, `http` over those that take requests of HTTP.
macro_rules! over_kinds {
    (every: [$($every:ident),* $(,)?], sharing: [$($sharing:ident),* $(,)?]) => {
        $crate::support::over_kinds!(@ event Event: $($every)* $($sharing)*);
        $crate::support::over_kinds!(@ http_02 Http02: $($every)*);
        $crate::support::over_kinds!(@ http_03 Http03: $($every)* $($sharing)*);
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
