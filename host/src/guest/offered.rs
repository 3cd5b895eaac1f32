//! The interfaces that this host offers for import, by name: for the message about an import that it does not offer.

use wasmtime::component::Component;

/// Packages with their versions, and the interfaces of each version.
const OFFERED: [(&str, &str, &[&str]); 12] = [
    ("wasi:cli", "0.2", &["environment", "exit", "stdin", "stdout", "stderr", "terminal-input", "terminal-output"]),
    ("wasi:clocks", "0.2", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", "0.2", &["types", "preopens"]),
    ("wasi:http", "0.2", &["types", "outgoing-handler"]),
    ("wasi:io", "0.2", &["error", "poll", "streams"]),
    ("wasi:random", "0.2", &["random", "insecure", "insecure-seed"]),
    ("wasi:cli", "0.3", &["environment", "exit", "stdin", "stdout", "stderr", "types"]),
    ("wasi:clocks", "0.3", &["monotonic-clock", "system-clock", "types"]),
    ("wasi:filesystem", "0.3", &["types", "preopens"]),
    ("wasi:http", "0.3", &["types", "client"]),
    ("wasi:random", "0.3", &["random", "insecure", "insecure-seed"]),
    ("dormouse:function", "0.1", &["types", "outgoing"]),
];

/// What is wrong with a component's imports, from the engine's message: the import's name and the most similar one
/// offered.
pub(super) fn missing(compiled: &Component, said: &str) -> String {
    let named = |name: &&str| said.contains(&format!("`{name}`"));
    let component_type = compiled.component_type();
    let Some((import, _)) = component_type.imports(compiled.engine()).find(|(name, _)| named(name)) else {
        return said.to_owned();
    };
    let offered = names().map(|name| (strsim::jaro_winkler(&name, import), name));
    let nearest = offered.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name).unwrap_or_default();
    let exact = import.strip_prefix(nearest.as_str()).is_some_and(|rest| rest.starts_with('.') || rest.is_empty());
    if exact {
        // Offered under this name, but without something that the component uses.
        return format!("`{import}` as it wants it: {said}");
    }
    format!("`{import}`; the nearest that it does offer is `{nearest}` (it offers WASI 0.2 and 0.3 without sockets)")
}

fn names() -> impl Iterator<Item = String> {
    let names = |(package, version, interfaces): &(&str, &str, &'static [&str])| {
        let (package, version) = ((*package).to_owned(), (*version).to_owned());
        interfaces.iter().map(move |interface| format!("{package}/{interface}@{version}"))
    };
    OFFERED.iter().flat_map(names)
}
