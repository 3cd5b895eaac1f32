//! How a guest ends when it is not stopped gracefully. These are values, not errors of the host.

use wasmtime::WasmBacktrace;

use super::call::CallId;

/// The end of a guest that cannot be called any more.
#[derive(Clone, Debug)]
pub enum Ending {
    /// A trap, a limit or a deadline stopped it.
    Crashed {
        /// What happened.
        trap: Trap,
        /// The call whose code was running, if the engine can tell.
        blamed: Option<CallId>,
    },
    /// Memory growth was refused, and the guest did not carry on without it; or the host took its memory back.
    OutOfMemory {
        /// Whose memory was used up.
        lack: MemoryLack,
        /// The call whose code was running, if the engine can tell.
        blamed: Option<CallId>,
    },
    /// It could not be started.
    NotStarted(Trap),
}

/// What a guest's memory lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLack {
    /// It reached the function's own limit.
    OwnLimit,
    /// The host has no more.
    Host,
}

impl Ending {
    /// The call whose code ended the guest, if the engine can tell.
    pub fn blamed(&self) -> Option<CallId> {
        match self {
            Ending::Crashed { blamed, .. } | Ending::OutOfMemory { blamed, .. } => *blamed,
            Ending::NotStarted(_) => None,
        }
    }
}

/// Why guest code was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// A stable name in kebab-case, such as `unreachable` or `stack-overflow`.
    pub name: &'static str,
    /// One line for the caller.
    pub summary: String,
    /// The engine's whole text with the guest's functions; for the log only.
    pub backtrace: String,
}

/// The name of what is a trap only to those whom the guest has not answered.
const EXITED: &str = "exited";

impl Trap {
    /// Whether the guest ended itself, and says that it did so in order.
    pub fn is_exit(&self) -> bool {
        self.name == EXITED
    }

    /// Reads the engine's error.
    pub(super) fn from_engine(error: &wasmtime::Error) -> Trap {
        let (name, summary) = describe(error);
        // The engine puts the frames before the cause; they read better below it.
        let backtrace = match error.downcast_ref::<WasmBacktrace>() {
            Some(frames) => format!("{}\n{frames}", error.root_cause()),
            None => format!("{error:#}"),
        };
        Trap { name, summary, backtrace }
    }
}

fn describe(error: &wasmtime::Error) -> (&'static str, String) {
    if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
        return (trap_name(*trap), trap.to_string());
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        let name = if exit.0 == 0 { EXITED } else { "exit" };
        return (name, format!("the guest exited with status {}", exit.0));
    }
    if let Some(error) = error.downcast_ref::<wasmtime::component::ResourceTableError>() {
        return ("handle-limit", format!("the guest holds too many resources: {error}"));
    }
    // The engine has only texts for these two, no types.
    let text = error.root_cause().to_string();
    if text.contains("handle limit") {
        return ("handle-limit", "the guest holds too many handles".to_owned());
    }
    if text.contains("hostcalls has been exhausted") {
        return ("hostcall-limit", "one call moved more data between guest and host than is allowed".to_owned());
    }
    ("host-error", text.lines().next().unwrap_or_default().to_owned())
}

fn trap_name(trap: wasmtime::Trap) -> &'static str {
    use wasmtime::Trap as T;
    match trap {
        T::StackOverflow => "stack-overflow",
        T::MemoryOutOfBounds => "memory-out-of-bounds",
        T::HeapMisaligned => "heap-misaligned",
        T::TableOutOfBounds => "table-out-of-bounds",
        T::IndirectCallToNull => "indirect-call-to-null",
        T::BadSignature => "bad-signature",
        T::IntegerOverflow => "integer-overflow",
        T::IntegerDivisionByZero => "integer-division-by-zero",
        T::BadConversionToInteger => "bad-conversion-to-integer",
        T::UnreachableCodeReached => "unreachable",
        T::Interrupt => "interrupt",
        T::NoAsyncResult => "no-async-result",
        T::CannotEnterComponent => "cannot-enter-component",
        T::AsyncDeadlock => "async-deadlock",
        T::CannotLeaveComponent => "cannot-leave-component",
        T::CannotBlockSyncTask => "cannot-block-sync-task",
        // The engine may add traps in a patch release; the summary says which it was.
        _ => "trap",
    }
}
