//! How many requests an instance of a component can serve. Types do not tell, so it is read from the bytes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmparser::{CanonicalFunction, CanonicalOption, KnownCustom, Parser, Payload};

/// The toolchain that makes some components whose instances can answer only one request.
const COMPONENTIZE_JS: &str = "ComponentizeJS";
/// Start and end of the name of a `wasi:http` 0.2 handler in core modules.
const HANDLER: (&str, &str) = ("wasi:http/incoming-handler@", "#handle");

/// How many requests an instance of a component can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// True if an instance can serve several requests at once, provided that its handler is asynchronous.
    // An export of an asynchronous type may still be lifted synchronously, as toolchains for C do. Calls of such an
    // export wait for each other inside the instance.
    pub shares: bool,
    /// How many requests an instance can answer in total, if the component limits this. `maxRequestsPerInstance` may
    /// set another limit.
    // componentize-js makes two kinds of components. Either the author's module exports the handler, or the module
    // listens for `fetch` events and the JavaScript engine's own handler is exported. The latter supports one event
    // only: after it was answered, the next request gets no response. A module's export comes with a function that
    // frees results, the engine's own handler does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_max: Option<u32>,
}

impl Default for Capacity {
    fn default() -> Capacity {
        Capacity { shares: true, requests_max: None }
    }
}

impl Capacity {
    /// Reads a component's bytes. Bytes that cannot be parsed do not compile either.
    pub fn of(component: &[u8]) -> Capacity {
        let (mut shares, mut by_componentize_js, mut handler, mut frees) = (false, false, None, Vec::new());
        for payload in Parser::new(0).parse_all(component).map_while(Result::ok) {
            match payload {
                Payload::ComponentCanonicalSection(section) => {
                    shares |= section.into_iter().map_while(Result::ok).any(|canonical| lifts_async(&canonical));
                }
                Payload::CustomSection(section) => {
                    if let KnownCustom::Producers(producers) = section.as_known() {
                        let mut values = producers.into_iter().map_while(Result::ok).flat_map(|field| field.values);
                        by_componentize_js |= values.any(|value| value.is_ok_and(|it| it.name == COMPONENTIZE_JS));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section.into_iter().map_while(Result::ok) {
                        if export.name.starts_with(HANDLER.0) && export.name.ends_with(HANDLER.1) {
                            handler = Some(export.name);
                        }
                        frees.extend(export.name.strip_prefix("cabi_post_"));
                    }
                }
                _ => {}
            }
        }
        let is_engines_own = handler.is_some_and(|handler| by_componentize_js && !frees.contains(&handler));
        Capacity { shares, requests_max: is_engines_own.then_some(1) }
    }
}

fn lifts_async(canonical: &CanonicalFunction) -> bool {
    matches!(canonical, CanonicalFunction::Lift { options, .. } if options.contains(&CanonicalOption::Async))
}
