//! The wasmtime engine as this host uses it, and the imports it offers to guests.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use wasmtime::component::{Component as Compiled, Linker};
use wasmtime::{Config, OptLevel};

use super::arena;
use super::bulk;
use super::code::{CodeFile, CompiledCode};
use super::epoch::Ticker;
use super::outgoing;
use super::reach::Network;
use super::refusal::Refusal;
use super::world::World;
use crate::machine::MAPS_PER_LARGE_INSTANCE;
use crate::memory::Governor;

/// Bytes of stack that guest code may use.
const WASM_STACK_BYTES: usize = 512 << 10;
/// Bytes of a fiber's stack outside an arena: the guest's stack, and room for host calls.
const FIBER_STACK_BYTES: usize = 1 << 20;
/// Components with more initial data than this have it mapped, not copied, into each instance.
const COPIED_DATA_BYTES_MAX: usize = 512 << 10;

/// The engine as this host uses it; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    sides: Arc<Sides>,
}

/// Two wasmtime engines, because no single configuration suits all components.
///
/// Small components take their memory from an arena: they start faster, and the kernel's limit of maps does not bound
/// their number, but their code checks the bounds of each access. Large components, mostly language runtimes, share the
/// pages of their initial data by copy on write and need no checks, but each instance costs maps.
///
/// The cost of the checks, measured against the other engine in one run: nothing for code that computes in registers
/// (recursive Fibonacci numbers), 1.2 times where each load waits for the one before, and 1.7 to 2 times in the worst
/// case, a tight loop of only loads and stores.
struct Sides {
    small: Side,
    large: Side,
    ticker: Arc<Ticker>,
    memory_bytes_total: Arc<AtomicU64>,
    governor: Governor,
    network: Arc<Network>,
}

struct Side {
    engine: wasmtime::Engine,
    linker: Linker<World>,
}

impl Engine {
    /// Sets the engine up and starts its epoch ticker, which sleeps until a store is polled. Guests ask `governor` for
    /// memory, and reach others over `network`.
    pub fn new(governor: Governor, network: Arc<Network>) -> anyhow::Result<Engine> {
        let (small, large) = (Side::new(&small_config())?, Side::new(&large_config())?);
        let engines = [small.engine.clone(), large.engine.clone()];
        let ticker = Ticker::start(engines, governor.clone()).context("start the epoch ticker")?;
        let sides =
            Sides { small, large, ticker: Arc::new(ticker), memory_bytes_total: Arc::default(), governor, network };
        Ok(Engine { sides: Arc::new(sides) })
    }

    /// A hash of everything that compiled code depends on: the engine's version, settings and machine, and what is made of
    /// a component before.
    pub fn compatibility(&self) -> String {
        let mut hasher = DefaultHasher::new();
        for side in [&self.sides.small, &self.sides.large] {
            side.engine.precompile_compatibility_hash().hash(&mut hasher);
        }
        (COPIED_DATA_BYTES_MAX, bulk::VERSION, bulk::PIECE_BYTES).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// Maps compiled code.
    pub(super) fn map(&self, code: &CodeFile) -> wasmtime::Result<Compiled> {
        // Compiled code records the settings it was compiled for, so the other engine refuses it.
        map(&self.sides.small.engine, code).or_else(|_| map(&self.sides.large.engine, code))
    }

    /// Kernel maps that an instance of a component adds.
    pub(super) fn maps_per_instance(&self, compiled: &Compiled) -> u64 {
        if self.is_small(compiled) { arena::maps_per_instance() } else { MAPS_PER_LARGE_INSTANCE }
    }

    /// What the component may import.
    pub(super) fn linker_of(&self, compiled: &Compiled) -> &Linker<World> {
        if self.is_small(compiled) { &self.sides.small.linker } else { &self.sides.large.linker }
    }

    fn is_small(&self, compiled: &Compiled) -> bool {
        wasmtime::Engine::same(compiled.engine(), &self.sides.small.engine)
    }

    /// Linear memory of all guests together, in bytes. Changes as guests grow and are dropped.
    pub fn memory_bytes_total(&self) -> Arc<AtomicU64> {
        self.sides.memory_bytes_total.clone()
    }

    /// Epochs of 1 ms in which some guest ran, and whether one runs now.
    pub fn epochs(&self) -> (u64, bool) {
        (self.sides.ticker.ticks(), !self.sides.ticker.is_asleep())
    }

    pub(super) fn governor(&self) -> &Governor {
        &self.sides.governor
    }

    pub(super) fn network(&self) -> &Arc<Network> {
        &self.sides.network
    }

    pub(super) fn ticker(&self) -> Arc<Ticker> {
        self.sides.ticker.clone()
    }
}

/// Compiles a component to machine code on all cores, or says why it is none.
pub fn compile(bytes: &[u8]) -> Result<CompiledCode, Refusal> {
    Refusal::check_kind(bytes)?;
    let small = initial_data_bytes(bytes) <= COPIED_DATA_BYTES_MAX;
    let config = if small { small_config() } else { large_config() };
    let bytes = bulk::in_pieces(bytes);
    let compiled = wasmtime::Engine::new(&config).and_then(|engine| engine.precompile_component(&bytes));
    compiled.map(CompiledCode::new).map_err(|error| Refusal::Invalid(format!("{error:#}")))
}

impl Side {
    fn new(config: &Config) -> anyhow::Result<Side> {
        let engine = wasmtime::Engine::new(config).map_err(anyhow::Error::from).context("set up the engine")?;
        let linker = imports(&engine).map_err(anyhow::Error::from).context("set up the guests' imports")?;
        Ok(Side { engine, linker })
    }
}

/// Bytes that instantiation writes into the memories of a component.
fn initial_data_bytes(component: &[u8]) -> usize {
    let sections = wasmparser::Parser::new(0).parse_all(component).filter_map(Result::ok);
    let data = sections.filter_map(|section| match section {
        wasmparser::Payload::DataSection(data) => Some(data),
        _ => None,
    });
    // Bytes that cannot be parsed do not compile either.
    data.flatten().filter_map(Result::ok).map(|segment| segment.data.len()).sum()
}

#[expect(unsafe_code, reason = "the engine offers no safe way to map compiled code")]
fn map(engine: &wasmtime::Engine, code: &CodeFile) -> wasmtime::Result<Compiled> {
    // SAFETY: Whoever made the `CodeFile` vouched that it holds what [`compile`] returned, and that it stays so.
    unsafe { Compiled::deserialize_file(engine, code.path()) }
}

fn small_config() -> Config {
    let mut config = config();
    arena::install(&mut config);
    config
}

fn large_config() -> Config {
    let mut config = config();
    config.async_stack_size(FIBER_STACK_BYTES);
    config
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_zeroing(true)
        // Backtraces are logged; without names and lines they would be only numbers.
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Enable)
        // No inlining: toolchains have already inlined guests. Measured on small Rust components, inlining doubles the
        // code and takes three to four times as long to compile. A loop of calls to a tiny function, which a toolchain
        // would have inlined, was 1.3 times as fast; recursive calls were not faster.
        .compiler_inlining(wasmtime::Inlining::No)
        // Features that functions do not need are off: most security advisories concern new features. Multi-memory is
        // on: the engine itself generates modules that use it for components composed of others.
        .wasm_memory64(false)
        .wasm_stack_switching(false)
        .wasm_component_model_async(true);
    config
}

fn imports(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<World>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    outgoing::add_to_linker(&mut linker)?;
    // This one holds types only.
    linker.instance("dormouse:function/types@0.1.0")?;
    Ok(linker)
}
