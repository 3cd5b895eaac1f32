//! The keys that files of Serverless Devs may have, for its components `fc` and `fc3`.
//!
//! A key that is not here is a fault with its line: a misspelled setting is not to be left out without a word.

use super::yaml::{Data, Key, Node};

/// What may stand in a place.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Anything; the host looks at it.
    Any,
    /// A number; a text of digits, as variables have them, is one.
    Number,
    /// A map of texts, with any keys; numbers and truths are texts too.
    Texts,
    /// These keys.
    Map(&'static [(&'static str, Shape)]),
    /// A list of such.
    List(&'static Shape),
}

use Shape::{Any, List, Map, Number, Texts};

/// The file itself.
pub(super) const FILE: &[(&str, Shape)] = &[
    ("edition", Any),
    ("name", Any),
    ("access", Any),
    ("vars", Any),
    ("env", Any),
    ("template", Any),
    ("flow", Any),
    ("resources", Any),
    ("services", Any),
];

/// One of its resources.
pub(super) const RESOURCE: &[(&str, Shape)] = &[
    ("component", Any),
    ("access", Any),
    ("props", Any),
    ("extend", Map(&[("name", Any), ("ignore", Any)])),
    ("actions", Any),
];

const HOOK: Shape = Map(&[("handler", Any), ("timeout", Number), ("command", List(&Any))]);
const LIFECYCLE: Shape = Map(&[("initializer", HOOK), ("preFreeze", HOOK), ("preStop", HOOK)]);
const TRIGGER: Shape = Map(&[
    ("triggerName", Any),
    ("triggerType", Any),
    ("triggerConfig", Any),
    ("description", Any),
    ("qualifier", Any),
    ("sourceArn", Any),
    ("invocationRole", Any),
]);
const ALIAS: Shape =
    Map(&[("aliasName", Any), ("versionId", Any), ("description", Any), ("additionalVersionWeight", Any)]);
const ROUTE: Shape = Map(&[
    ("path", Any),
    ("functionName", Any),
    ("serviceName", Any),
    ("qualifier", Any),
    ("methods", List(&Any)),
    ("rewriteConfig", Any),
]);

/// `props` of the component `fc3`.
pub(super) const FC3: &[(&str, Shape)] = &[
    ("region", Any),
    ("functionName", Any),
    ("description", Any),
    ("runtime", Any),
    ("handler", Any),
    ("code", Any),
    ("memorySize", Number),
    ("cpu", Number),
    ("diskSize", Number),
    ("timeout", Number),
    ("idleTimeout", Number),
    ("instanceConcurrency", Number),
    ("instanceLifecycleConfig", LIFECYCLE),
    ("environmentVariables", Texts),
    ("internetAccess", Any),
    ("role", Any),
    ("layers", Any),
    ("logConfig", Any),
    ("vpcConfig", Any),
    ("nasConfig", Any),
    ("ossMountConfig", Any),
    ("tracingConfig", Any),
    ("gpuConfig", Any),
    ("caPort", Number),
    ("customContainerConfig", Any),
    ("customRuntimeConfig", Any),
    ("customDNS", Any),
    ("disableOndemand", Any),
    ("disableInjectCredentials", Any),
    ("enableLongLiving", Any),
    ("instanceIsolationMode", Any),
    ("sessionAffinity", Any),
    ("sessionAffinityConfig", Any),
    ("microSandboxConfig", Any),
    ("resourceGroupId", Any),
    ("tags", Any),
    ("endpoint", Any),
    ("triggers", List(&TRIGGER)),
    (
        "asyncInvokeConfig",
        Map(&[
            ("asyncTask", Any),
            ("destinationConfig", Any),
            ("maxAsyncEventAgeInSeconds", Number),
            ("maxAsyncRetryAttempts", Number),
            ("qualifier", Any),
        ]),
    ),
    ("concurrencyConfig", Map(&[("reservedConcurrency", Number)])),
    ("provisionConfig", Any),
    ("scalingConfig", Any),
    (
        "customDomain",
        Map(&[
            ("domainName", Any),
            ("protocol", Any),
            ("route", ROUTE),
            ("routeConfig", Map(&[("routes", List(&ROUTE))])),
            ("authConfig", Any),
            ("certConfig", Any),
            ("corsConfig", Any),
            ("tlsConfig", Any),
            ("wafConfig", Any),
        ]),
    ),
    ("aliases", List(&ALIAS)),
];

/// `props` of the component `fc`.
pub(super) const FC: &[(&str, Shape)] = &[
    ("region", Any),
    (
        "service",
        Map(&[
            ("name", Any),
            ("description", Any),
            ("internetAccess", Any),
            ("role", Any),
            ("logConfig", Any),
            ("nasConfig", Any),
            ("vpcConfig", Any),
            ("tracingConfig", Any),
            ("ossMountConfig", Any),
            ("tags", Any),
        ]),
    ),
    (
        "function",
        Map(&[
            ("name", Any),
            ("description", Any),
            ("runtime", Any),
            ("handler", Any),
            ("codeUri", Any),
            ("memorySize", Number),
            ("cpu", Number),
            ("diskSize", Number),
            ("timeout", Number),
            ("initializer", Any),
            ("initializationTimeout", Number),
            ("instanceConcurrency", Number),
            ("instanceSoftConcurrency", Number),
            ("instanceType", Any),
            ("instanceLifecycleConfig", LIFECYCLE),
            ("environmentVariables", Texts),
            ("layers", Any),
            ("caPort", Number),
            ("gpuMemorySize", Number),
            ("customContainerConfig", Any),
            ("customRuntimeConfig", Any),
            ("customDNS", Any),
            ("customHealthCheckConfig", Any),
            (
                "asyncConfiguration",
                Map(&[
                    ("destination", Any),
                    ("maxAsyncEventAgeInSeconds", Number),
                    ("maxAsyncRetryAttempts", Number),
                    ("statefulInvocation", Any),
                ]),
            ),
        ]),
    ),
    (
        "triggers",
        List(&Map(&[
            ("name", Any),
            ("type", Any),
            ("config", Any),
            ("description", Any),
            ("qualifier", Any),
            ("role", Any),
            ("sourceArn", Any),
        ])),
    ),
    (
        "customDomains",
        List(&Map(&[
            ("domainName", Any),
            ("protocol", Any),
            ("routeConfigs", List(&ROUTE)),
            ("certConfig", Any),
            ("tlsConfig", Any),
        ])),
    ),
    ("aliases", List(&ALIAS)),
];

/// Checks the keys of a value, and makes numbers of texts where numbers must be. `at` names the place.
pub(super) fn check(node: &mut Node, shape: Shape, at: &str, faults: &mut Vec<String>) {
    let line = node.line;
    let place = if at.is_empty() { "this".to_owned() } else { format!("`{at}`") };
    match (shape, &mut node.data) {
        (Any, _) | (_, Data::Null) => {}
        (Number, Data::Whole(_)) => {}
        (Number, Data::Real(number)) if number.is_finite() => {}
        (Number, data @ Data::Text(_)) => {
            let Data::Text(text) = &*data else { return };
            match (text.trim().parse::<i64>(), text.trim().parse::<f64>()) {
                (Ok(number), _) => *data = Data::Whole(number),
                (_, Ok(number)) if number.is_finite() => *data = Data::Real(number),
                _ => faults.push(format!("line {line}: `{at}` is the text {text:?}; it must be a number")),
            }
        }
        (Number, _) => faults.push(format!("line {line}: {place} must be a number")),
        (Texts, Data::Map(entries)) => {
            for (Key { line, name }, value) in entries {
                match &value.data {
                    Data::Text(_) | Data::Null => {}
                    Data::Bool(_) | Data::Whole(_) | Data::Real(_) => value.data = Data::Text(value.to_string()),
                    Data::List(_) | Data::Map(_) => faults.push(format!("line {line}: `{at}.{name}` must be a text")),
                }
            }
        }
        (Texts, _) => faults.push(format!("line {line}: {place} must be a map of texts")),
        (List(inner), Data::List(list)) => list.iter_mut().for_each(|node| check(node, *inner, at, faults)),
        (List(_), _) => faults.push(format!("line {line}: {place} must be a list")),
        // `auto` and the like: the host, or who makes a request of it, knows whether that can be.
        (Map(_), Data::Text(_)) => {}
        (Map(keys), Data::Map(entries)) => {
            for (Key { line, name }, value) in entries {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                match keys.iter().find(|(known, _)| known == name) {
                    Some((_, shape)) => check(value, *shape, &at, faults),
                    None => {
                        let known: Vec<String> = keys.iter().map(|(known, _)| format!("`{known}`")).collect();
                        faults.push(format!("line {line}: unknown key `{at}`; known here: {}", known.join(", ")));
                    }
                }
            }
        }
        (Map(_), _) => faults.push(format!("line {line}: {place} must be a map")),
    }
}
