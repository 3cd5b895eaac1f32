//! fib(27) as a component for the host, and the same core code on the bare engine without epochs.

use std::time::Duration;

use anyhow::{Result, ensure};
use wasmtime::{Engine, Instance, Module, Store, TypedFunc};

use crate::clock::timed;

const CODE: &str = include_str!("fib.wat");
pub(crate) const RESULT: u64 = 196_418;

/// The component: the core module, lifted to the contract's `handler`.
pub(crate) fn component() -> Result<Vec<u8>> {
    let module = CODE.replacen("(module", "(core module $code", 1);
    Ok(wat::parse_str(format!(
        r#"(component
            (type $record (record
                (field "request-id" string) (field "function" string) (field "version" string)
                (field "instance-id" string) (field "memory-mb" u32) (field "deadline-ms" u64) (field "attempt" u32)
                (field "traceparent" (option string))))
            (export $context "context" (type $record))
            {module}
            (core instance $core (instantiate $code))
            (func (export "handler")
                (param "ctx" $context) (param "event" (list u8)) (result (result (list u8) (error string)))
                (canon lift (core func $core "handler")
                    (memory (core memory $core "memory")) (realloc (core func $core "realloc")))))"#
    ))?)
}

/// The bare engine: no epochs, no limits, no WASI.
pub(crate) struct Bare {
    store: Store<()>,
    fib: TypedFunc<i64, i64>,
}

impl Bare {
    pub(crate) fn new() -> Result<Bare> {
        let engine = Engine::default();
        // By way of the binary: the engine is built without a parser of texts.
        let module = Module::new(&engine, wat::parse_str(CODE)?)?;
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &module, &[])?;
        let fib = instance.get_typed_func(&mut store, "fib")?;
        Ok(Bare { store, fib })
    }

    pub(crate) fn calls(&mut self, count: u32) -> Result<Duration> {
        let (took, done) = timed(|| -> Result<()> {
            for _ in 0..count {
                ensure!(self.fib.call(&mut self.store, 27)? as u64 == RESULT, "fib(27) is wrong");
            }
            Ok(())
        });
        done.map(|()| took)
    }
}
