//! Instructions that fill or copy memory, done in pieces.
//!
//! Compiled code looks at the epoch before `memory.fill`, `memory.copy` and `memory.init`, and not while one of them is
//! under way: 1.9 GB that are touched for the first time kept a core for seconds, whatever the deadline. So before a
//! component is compiled, each of these instructions becomes a call of a function that is added to its module. The
//! function does what the instruction does, and does it in a loop, which looks at the epoch once a piece.
//!
//! Instructions with a small constant length stay as they are: the engine compiles those to a few moves. What replaces an
//! instruction has its length, so that debug information keeps pointing at the right lines.

use std::borrow::Cow;
use std::collections::BTreeMap;

use wasm_encoder::{BlockType, Encode as _, Function, Instruction};
use wasmparser::{BinaryReader, FunctionBody, ImportSectionReader, Operator, Result, TypeRef, TypeSectionReader};

/// Bytes that are filled or copied at once: some 100 us where each page is touched for the first time.
pub(super) const PIECE_BYTES: u32 = 256 << 10;

/// The name of what this file makes of a component; to be counted up when it makes something else.
pub(super) const VERSION: u32 = 1;

/// Sections of a module.
const TYPES: u8 = 1;
const IMPORTS: u8 = 2;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;
/// Sections of a component.
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// Magic number and version.
const HEADER_BYTES: usize = 8;

/// The component with its memory instructions in pieces. Bytes that cannot be read stay as they are: the engine says
/// better what is wrong with them.
pub(super) fn in_pieces(component: &[u8]) -> Cow<'_, [u8]> {
    rewrite(component, PIECE_BYTES).map_or(Cow::Borrowed(component), Cow::Owned)
}

/// An instruction that is replaced, with its immediates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bulk {
    Fill { memory: u32 },
    Copy { to: u32, from: u32 },
    Init { segment: u32, memory: u32 },
}

/// The functions that a module gets: what each of them does, in the order of their indexes, which begin at `first`.
struct Added {
    first: u32,
    all: Vec<Bulk>,
    indexes: BTreeMap<Bulk, u32>,
}

impl Added {
    fn index_of(&mut self, bulk: Bulk) -> u32 {
        *self.indexes.entry(bulk).or_insert_with(|| {
            self.all.push(bulk);
            self.first + self.all.len() as u32 - 1
        })
    }
}

fn rewrite(binary: &[u8], piece: u32) -> Result<Vec<u8>> {
    // The second half of the version says which of the two it is.
    let is_component = binary.get(6..HEADER_BYTES) == Some(&[1, 0]);
    if is_component { rewrite_component(binary, piece) } else { rewrite_module(binary, piece) }
}

fn rewrite_component(component: &[u8], piece: u32) -> Result<Vec<u8>> {
    let mut written = component[..HEADER_BYTES].to_vec();
    for section in sections(component)? {
        match section {
            (id @ (CORE_MODULE | COMPONENT), contents) => push_section(&mut written, id, &rewrite(contents, piece)?),
            (id, contents) => push_section(&mut written, id, contents),
        }
    }
    Ok(written)
}

fn rewrite_module(module: &[u8], piece: u32) -> Result<Vec<u8>> {
    let all = sections(module)?;
    let contents = |wanted: u8| all.iter().find(|(id, _)| *id == wanted).map(|(_, contents)| *contents);
    let (Some(types), Some(functions), Some(code)) = (contents(TYPES), contents(FUNCTIONS), contents(CODE)) else {
        return Ok(module.to_vec());
    };
    let declared = BinaryReader::new(functions, 0).read_var_u32()?;
    let first = functions_imported(contents(IMPORTS))?.saturating_add(declared);
    let mut added = Added { first, all: Vec::new(), indexes: BTreeMap::new() };
    let bodies = replace_in_bodies(code, &mut added, piece)?;
    if added.all.is_empty() {
        return Ok(module.to_vec());
    }
    let mut written = module[..HEADER_BYTES].to_vec();
    for (id, contents) in all {
        let mut items = Vec::new();
        match id {
            TYPES => {
                items.extend([0x60, 3, 0x7f, 0x7f, 0x7f, 0]); // Three `i32`, and nothing back.
                push_section(&mut written, id, &with_more(contents, 1, &items)?);
            }
            FUNCTIONS => {
                let new_type = types_declared(types)?;
                added.all.iter().for_each(|_| new_type.encode(&mut items));
                push_section(&mut written, id, &with_more(contents, added.all.len(), &items)?);
            }
            CODE => {
                added.all.iter().for_each(|bulk| bulk.in_a_loop(piece).encode(&mut items));
                push_section(&mut written, id, &with_more(&bodies, added.all.len(), &items)?);
            }
            _ => push_section(&mut written, id, contents),
        }
    }
    Ok(written)
}

/// The code section with calls in place of instructions; which functions it calls then is noted in `added`.
fn replace_in_bodies(code: &[u8], added: &mut Added, piece: u32) -> Result<Vec<u8>> {
    let mut reader = BinaryReader::new(code, 0);
    let mut written = Vec::with_capacity(code.len());
    let count = reader.read_var_u32()?;
    push_number(&mut written, count, reader.current_position());
    for _ in 0..count {
        let start = reader.current_position();
        let size = reader.read_var_u32()?;
        let size_bytes = reader.current_position() - start;
        let body = replace_in_body(reader.read_bytes(size as usize)?, added, piece)?;
        push_number(&mut written, body.len() as u32, size_bytes);
        written.extend(&*body);
    }
    Ok(written)
}

fn replace_in_body<'a>(body: &'a [u8], added: &mut Added, piece: u32) -> Result<Cow<'a, [u8]>> {
    let mut written = Vec::new();
    let mut copied = 0;
    let mut length = None;
    let mut operators = FunctionBody::new(BinaryReader::new(body, 0)).get_operators_reader()?;
    while !operators.eof() {
        let (operator, start) = operators.read_with_offset()?;
        let bulk = match operator {
            Operator::MemoryFill { mem } => Some(Bulk::Fill { memory: mem }),
            Operator::MemoryCopy { dst_mem, src_mem } => Some(Bulk::Copy { to: dst_mem, from: src_mem }),
            Operator::MemoryInit { data_index, mem } => Some(Bulk::Init { segment: data_index, memory: mem }),
            _ => None,
        };
        if let Some(bulk) = bulk
            && length.is_none_or(|length| length > piece)
        {
            let end = operators.original_position();
            written.extend(&body[copied..start]);
            written.push(0x10); // `call`
            push_number(&mut written, added.index_of(bulk), end - start - 1);
            copied = end;
        }
        length = if let Operator::I32Const { value } = operator { Some(value.cast_unsigned()) } else { None };
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(body));
    }
    written.extend(&body[copied..]);
    Ok(Cow::Owned(written))
}

/// The parameters of the instructions, and so of the functions: to where, what or from where, and how many bytes.
const TO: u32 = 0;
const FROM: u32 = 1;
const LENGTH: u32 = 2;

impl Bulk {
    /// The function that does it in pieces.
    fn in_a_loop(self, piece: u32) -> Function {
        use Instruction::{Else, End, I32Const, I32GtU, If, LocalGet};
        let piece = I32Const(piece.cast_signed());
        let mut code = vec![LocalGet(LENGTH), piece.clone(), I32GtU, If(BlockType::Empty)];
        self.check_bounds(&mut code);
        match self {
            Bulk::Copy { to, from } if to == from => {
                // Where the two overlap, nothing may be overwritten before it was read.
                code.extend([LocalGet(TO), LocalGet(FROM), I32GtU, If(BlockType::Empty)]);
                self.loop_backwards(&piece, &mut code);
                code.push(Else);
                self.loop_forwards(&piece, &mut code);
                code.push(End);
            }
            _ => self.loop_forwards(&piece, &mut code),
        }
        code.push(End);
        code.extend([LocalGet(TO), LocalGet(FROM), LocalGet(LENGTH), self.instruction(), End]);
        let mut function = Function::new([]);
        for instruction in &code {
            function.instruction(instruction);
        }
        function
    }

    fn instruction(self) -> Instruction<'static> {
        match self {
            Bulk::Fill { memory } => Instruction::MemoryFill(memory),
            Bulk::Copy { to, from } => Instruction::MemoryCopy { src_mem: from, dst_mem: to },
            Bulk::Init { segment, memory } => Instruction::MemoryInit { mem: memory, data_index: segment },
        }
    }

    /// Whoever goes beyond an end traps before anything is written, as the instruction does.
    fn check_bounds(self, code: &mut Vec<Instruction<'static>>) {
        use Instruction::{End, I32Add, I32Const, I32LtU, I32Sub, If, LocalGet, MemoryCopy};
        let last = |start| [LocalGet(start), LocalGet(LENGTH), I32Add, I32Const(1), I32Sub];
        // Beyond all that 32 bits can address; the instruction itself traps.
        let overflows = |start, code: &mut Vec<_>| {
            code.extend(last(start));
            code.extend([LocalGet(start), I32LtU, If(BlockType::Empty)]);
            code.extend([LocalGet(TO), LocalGet(FROM), LocalGet(LENGTH), self.instruction(), End]);
        };
        // The last byte is copied to itself.
        let within = |start, memory, code: &mut Vec<_>| {
            code.extend(last(start).into_iter().chain(last(start)));
            code.extend([I32Const(1), MemoryCopy { src_mem: memory, dst_mem: memory }]);
        };
        overflows(TO, code);
        match self {
            Bulk::Fill { memory } => within(TO, memory, code),
            Bulk::Copy { to, from } => {
                overflows(FROM, code);
                within(TO, to, code);
                within(FROM, from, code);
            }
            Bulk::Init { memory, .. } => {
                overflows(FROM, code);
                within(TO, memory, code);
                // No bytes from the end of the segment.
                code.extend([LocalGet(TO), LocalGet(FROM), LocalGet(LENGTH), I32Add, I32Const(0), self.instruction()]);
            }
        }
    }

    /// Pieces from the start, while more than one is left.
    fn loop_forwards(self, piece: &Instruction<'static>, code: &mut Vec<Instruction<'static>>) {
        use Instruction::{BrIf, End, I32Add, I32GtU, I32Sub, LocalGet, LocalSet, Loop};
        code.push(Loop(BlockType::Empty));
        code.extend([LocalGet(TO), LocalGet(FROM), piece.clone(), self.instruction()]);
        code.extend([LocalGet(TO), piece.clone(), I32Add, LocalSet(TO)]);
        if !matches!(self, Bulk::Fill { .. }) {
            code.extend([LocalGet(FROM), piece.clone(), I32Add, LocalSet(FROM)]);
        }
        code.extend([LocalGet(LENGTH), piece.clone(), I32Sub, LocalSet(LENGTH)]);
        code.extend([LocalGet(LENGTH), piece.clone(), I32GtU, BrIf(0), End]);
    }

    /// The same from the end.
    fn loop_backwards(self, piece: &Instruction<'static>, code: &mut Vec<Instruction<'static>>) {
        use Instruction::{BrIf, End, I32Add, I32GtU, I32Sub, LocalGet, LocalSet, Loop};
        code.push(Loop(BlockType::Empty));
        code.extend([LocalGet(LENGTH), piece.clone(), I32Sub, LocalSet(LENGTH)]);
        code.extend([LocalGet(TO), LocalGet(LENGTH), I32Add, LocalGet(FROM), LocalGet(LENGTH), I32Add]);
        code.extend([piece.clone(), self.instruction()]);
        code.extend([LocalGet(LENGTH), piece.clone(), I32GtU, BrIf(0), End]);
    }
}

/// The sections of a module or of a component, by identifier.
fn sections(binary: &[u8]) -> Result<Vec<(u8, &[u8])>> {
    let mut reader = BinaryReader::new(binary, 0);
    reader.read_bytes(HEADER_BYTES)?;
    let mut sections = Vec::new();
    while !reader.eof() {
        let id = reader.read_u8()?;
        let size = reader.read_var_u32()?;
        sections.push((id, reader.read_bytes(size as usize)?));
    }
    Ok(sections)
}

fn push_section(written: &mut Vec<u8>, id: u8, contents: &[u8]) {
    written.push(id);
    contents.encode(written);
}

/// A section with `count` more items at its end.
fn with_more(contents: &[u8], count: usize, items: &[u8]) -> Result<Vec<u8>> {
    let mut reader = BinaryReader::new(contents, 0);
    let before = reader.read_var_u32()?;
    let count_bytes = reader.current_position();
    let mut written = Vec::with_capacity(contents.len() + items.len() + 4);
    push_number(&mut written, before.saturating_add(count as u32), count_bytes);
    written.extend(&contents[count_bytes..]);
    written.extend(items);
    Ok(written)
}

/// A number in LEB128, of so many bytes if they are enough for it.
fn push_number(written: &mut Vec<u8>, mut number: u32, bytes: usize) {
    for byte in 1.. {
        let is_last = byte >= bytes && number < 0x80;
        written.push((number & 0x7f) as u8 | if is_last { 0 } else { 0x80 });
        if is_last {
            return;
        }
        number >>= 7;
    }
}

fn functions_imported(imports: Option<&[u8]>) -> Result<u32> {
    let Some(imports) = imports else { return Ok(0) };
    let mut count = 0;
    for import in ImportSectionReader::new(BinaryReader::new(imports, 0))?.into_imports() {
        count += u32::from(matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
    }
    Ok(count)
}

fn types_declared(types: &[u8]) -> Result<u32> {
    let mut count = 0;
    for group in TypeSectionReader::new(BinaryReader::new(types, 0))? {
        count += group?.types().len() as u32;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasm_encoder::{
        CodeSection, DataCountSection, DataSection, EntityType, ExportKind, ExportSection, FunctionSection,
        ImportSection, MemorySection, MemoryType, Module, TypeSection, ValType,
    };
    use wasmtime::{Engine, Instance, Store};

    use super::*;

    const PAGE: usize = 65_536;
    const PIECE: u32 = 64;
    const SEGMENT: &[u8] = &[7; 300];

    /// A module that exports a function for each instruction, and two memories.
    fn module(instructions: &[&[Instruction<'_>]]) -> Vec<u8> {
        let (mut types, mut imports, mut functions) =
            (TypeSection::new(), ImportSection::new(), FunctionSection::new());
        types.ty().function([], []);
        types.ty().function([ValType::I32; 3], []);
        imports.import("host", "nothing", EntityType::Function(0));
        let (mut memories, mut exports, mut code) = (MemorySection::new(), ExportSection::new(), CodeSection::new());
        let memory = MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None };
        for index in 0..2 {
            memories.memory(memory);
            exports.export(&format!("memory{index}"), ExportKind::Memory, index);
        }
        for (index, body) in instructions.iter().enumerate() {
            functions.function(1);
            exports.export(&index.to_string(), ExportKind::Func, index as u32 + 1);
            let mut function = Function::new([]);
            for instruction in body.iter().chain([&Instruction::End]) {
                function.instruction(instruction);
            }
            code.function(&function);
        }
        let mut data = DataSection::new();
        data.passive(SEGMENT.iter().copied());
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions).section(&memories).section(&exports);
        module.section(&DataCountSection { count: 1 }).section(&code).section(&data);
        module.finish()
    }

    const BULK: [Bulk; 4] = [
        Bulk::Fill { memory: 0 },
        Bulk::Copy { to: 0, from: 0 },
        Bulk::Copy { to: 1, from: 0 },
        Bulk::Init { segment: 0, memory: 1 },
    ];

    fn all() -> Vec<u8> {
        let get = Instruction::LocalGet;
        let bodies = BULK.map(|bulk| [get(TO), get(FROM), get(LENGTH), bulk.instruction()]);
        module(&bodies.iter().map(|body| &body[..]).collect::<Vec<_>>())
    }

    struct Played {
        store: Store<()>,
        instance: Instance,
    }

    impl Played {
        fn new(engine: &Engine, module: &[u8]) -> Played {
            let mut store = Store::new(engine, ());
            let module = wasmtime::Module::new(engine, module).unwrap();
            let nothing = wasmtime::Func::wrap(&mut store, || {});
            let instance = Instance::new(&mut store, &module, &[nothing.into()]).unwrap();
            let memory = instance.get_memory(&mut store, "memory0").unwrap();
            memory.data_mut(&mut store).iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
            Played { store, instance }
        }

        /// How the call ended, and what is in the memories then.
        fn call(&mut self, function: usize, arguments: (u32, u32, u32)) -> (bool, [Vec<u8>; 2]) {
            let func = self.instance.get_typed_func::<(u32, u32, u32), ()>(&mut self.store, &function.to_string());
            let ended = func.unwrap().call(&mut self.store, arguments);
            if let Err(error) = &ended {
                assert!(error.downcast_ref::<wasmtime::Trap>().is_some(), "{error}");
            }
            let memories = ["memory0", "memory1"].map(|name| {
                let memory = self.instance.get_memory(&mut self.store, name).unwrap();
                memory.data(&self.store).to_vec()
            });
            (ended.is_ok(), memories)
        }
    }

    /// A length, an address or a place in the segment: often at an edge.
    fn number() -> impl Strategy<Value = u32> {
        let page = PAGE as u32;
        prop_oneof![
            0..2 * PIECE,
            0..400_u32,
            0..page,
            page - 200..page + 200,
            (0..300_u32).prop_map(|below| u32::MAX - below),
            Just(PIECE),
        ]
    }

    proptest! {
        /// In pieces each instruction does what it did: the same bytes, the same traps, and no byte where it traps.
        #[test]
        fn pieces_do_what_the_instruction_does(
            calls in prop::collection::vec((0..BULK.len(), number(), number(), number()), 1..12),
        ) {
            let engine = Engine::default();
            let (whole, pieces) = (all(), rewrite(&all(), PIECE).unwrap());
            let [mut whole, mut pieces] = [whole, pieces].map(|module| Played::new(&engine, &module));
            for (function, to, from, length) in calls {
                let expected = whole.call(function, (to, from, length));
                prop_assert!(pieces.call(function, (to, from, length)) == expected, "{function} {to} {from} {length}");
            }
        }
    }

    #[test]
    fn short_constant_lengths_and_modules_without_such_instructions_stay_as_they_are() {
        let copies = |length: u32| {
            let length = Instruction::I32Const(length.cast_signed());
            module(&[&[Instruction::LocalGet(0), Instruction::LocalGet(1), length, BULK[1].instruction()]])
        };
        for unchanged in [copies(PIECE), module(&[&[Instruction::Nop]]), b"no module at all".to_vec()] {
            assert_eq!(rewrite(&unchanged, PIECE).unwrap_or_else(|_| unchanged.clone()), unchanged);
        }
        assert_ne!(rewrite(&copies(PIECE + 1), PIECE).unwrap(), copies(PIECE + 1));
    }

    #[test]
    fn code_stays_where_it_was() {
        let body = |module: &[u8]| {
            let code = sections(module).unwrap().into_iter().find(|(id, _)| *id == CODE).unwrap().1.to_vec();
            code[..code.len().min(30)].to_vec()
        };
        let (before, after) = (body(&all()), body(&rewrite(&all(), PIECE).unwrap()));
        let differs: Vec<usize> = (0..30).filter(|at| before[*at] != after[*at]).collect();
        // The count; then in each body the three or four bytes behind the three parameters.
        assert_eq!(differs.first(), Some(&0));
        assert!(differs[1..].iter().all(|at| (9..12).contains(at) || (21..25).contains(at)), "{before:?} {after:?}");
    }

    #[test]
    fn numbers_take_the_room_that_they_had() {
        for (number, bytes, expected) in [
            (5, 1, &[5][..]),
            (5, 3, &[0x85, 0x80, 0]),
            (300, 1, &[0xac, 2]),
            (u32::MAX, 5, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut written = Vec::new();
            push_number(&mut written, number, bytes);
            assert_eq!(written, expected);
            assert_eq!(BinaryReader::new(&written, 0).read_var_u32().unwrap(), number);
        }
    }
}
