//! Components written as text: as small as can be, and wrong in exactly one point where a test wants that.

/// The type of `handler`'s context, as `wit/function.wit` has it.
const CONTEXT: &str = r#"
    (type $record (record
        (field "request-id" string) (field "function" string) (field "version" string) (field "instance-id" string)
        (field "memory-mb" u32) (field "deadline-ms" u64) (field "attempt" u32)
        (field "traceparent" (option string))))
    (export $context "context" (type $record))"#;

/// What a core module must export to be lifted: its memory, and an allocator, which here never gives anything back and
/// starts over in each call.
const ALLOCATOR: &str = r#"
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param $old i32) (param $old_bytes i32) (param $align i32) (param $bytes i32) (result i32)
        (local $start i32)
        (local.set $start (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
        (global.set $next (i32.add (local.get $start) (local.get $bytes)))
        (local.get $start))"#;

/// The parts of a small function. Its handler returns the bytes that `body` left at `REPLY`.
pub struct Small {
    /// 64 KiB each.
    pub pages: u32,
    /// Component level: what it imports, and core functions lowered from that, named `$lowered`.
    pub imports: &'static str,
    /// Instructions of the start function.
    pub start: &'static str,
    /// Instructions of the handler; the reply is eight bytes at address 32.
    pub body: &'static str,
}

impl Small {
    /// A function that answers eight zeros.
    pub const PLAIN: Small = Small { pages: 1, imports: "", start: "", body: "" };

    /// The component's bytes.
    pub fn component(&self) -> Vec<u8> {
        let Small { pages, imports, start, body } = self;
        let (core_import, core_arguments) = match imports.is_empty() {
            true => ("", ""),
            false => (
                r#"(import "host" "lowered" (func $lowered (result i64)))"#,
                r#"(with "host" (instance (export "lowered" (func $lowered))))"#,
            ),
        };
        component(&format!(
            r#"(component {imports} {CONTEXT}
                (core module $code
                    {core_import}
                    (memory (export "memory") {pages})
                    {ALLOCATOR}
                    (func (export "handler")
                        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32) (result i32)
                        (local $at i32) (local $seen i64)
                        {body}
                        (global.set $next (i32.const 4096))
                        (i32.store8 (i32.const 16) (i32.const 0)) ;; ok
                        (i32.store (i32.const 20) (i32.const 32))
                        (i32.store (i32.const 24) (i32.const 8))
                        (i32.const 16))
                    (func $start {start})
                    (start $start))
                (core instance $core (instantiate $code {core_arguments}))
                (func (export "handler")
                    (param "ctx" $context) (param "event" (list u8)) (result (result (list u8) (error string)))
                    (canon lift (core func $core "handler")
                        (memory (core memory $core "memory")) (realloc (core func $core "realloc")))))"#
        ))
    }
}

/// A component from its text.
pub fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
