//! Why an uploaded file cannot be deployed.

/// The first bytes of every WebAssembly binary.
const MAGIC: [u8; 4] = *b"\0asm";
/// What follows them in a component; a core module has version 1 there.
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];

/// Why a file cannot be deployed. Every message says what was found and what is expected.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not WebAssembly.
    #[error("not a WebAssembly file: it starts with {0}, not with the bytes 00 61 73 6d; upload a component (.wasm)")]
    NotWasm(String),
    /// A core module.
    #[error("a core module, not a component: build it for `wasm32-wasip2`, or wrap it with `wasm-tools component new`")]
    CoreModule,
    /// Neither a component nor a core module.
    #[error("WebAssembly of an unknown version ({0}): this host takes components of the 2025 binary format")]
    UnknownVersion(String),
    /// Truncated, damaged, or using a feature that is disabled.
    #[error("not a valid component: {0}")]
    Invalid(String),
    /// Compiling it takes more than the host allows.
    #[error("compiling it took more than {took}; the host's setting `{setting}` sets this limit")]
    TooCostly {
        /// What was used up.
        took: String,
        /// The setting that bounds it.
        setting: &'static str,
    },
    /// It imports something that this host does not offer.
    #[error("it imports what this host does not offer: {0}")]
    MissingImport(String),
    /// It exports no handler.
    #[error("it exports no `{wanted}` to answer events and no `wasi:http` handler; it exports {}", list(found))]
    NoHandler {
        /// The export that the function's configuration names.
        wanted: String,
        /// What the component exports instead.
        found: Vec<String>,
    },
    /// It lacks a hook that the configuration names.
    #[error("it exports no `{wanted}`, which is configured as {hook}; it exports {}", list(found))]
    NoHook {
        /// The hook.
        hook: &'static str,
        /// The export that the function's configuration names.
        wanted: String,
        /// What the component exports instead.
        found: Vec<String>,
    },
    /// A hook that is a request would exceed what an instance can answer.
    #[error(
        "its instances answer {requests_max} request in their life (it listens for `fetch` events), so no hook can be \
         the request `{request}`: leave the hook out, or export the handler and the hook from the module"
    )]
    NoRequestLeft {
        /// The hook's request.
        request: String,
        /// How many requests an instance can answer.
        requests_max: u32,
    },
    /// An export has the right name and the wrong type.
    #[error("its export `{name}` has the wrong shape: found `{found}`, wanted `{wanted}` (with or without `async`)")]
    WrongShape {
        /// The export.
        name: String,
        /// Its type.
        found: String,
        /// The type in the contract.
        wanted: String,
    },
}

fn list(found: &[String]) -> String {
    if found.is_empty() { "nothing".to_owned() } else { found.join(", ") }
}

impl Refusal {
    /// Checks the first bytes only.
    pub fn check_kind(bytes: &[u8]) -> Result<(), Refusal> {
        let start = &bytes[..bytes.len().min(8)];
        let hex: Vec<String> = start.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = if hex.is_empty() { "nothing (it is empty)".to_owned() } else { hex.join(" ") };
        if !start.starts_with(&MAGIC) {
            return Err(Refusal::NotWasm(hex));
        }
        match &start[MAGIC.len()..] {
            version if version == COMPONENT => Ok(()),
            version if version == CORE_MODULE => Err(Refusal::CoreModule),
            _ => Err(Refusal::UnknownVersion(hex)),
        }
    }
}
