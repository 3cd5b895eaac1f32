//! What a component must export, looked up by name and shape once, at deploy.

use std::fmt::Write as _;

use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component as Compiled, ComponentExportIndex};

use super::call::{CallContext, Entry};
use super::refusal::Refusal;

/// Which exports a function's configuration names. A hook's name is absent when it is disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryNames {
    /// Answers requests.
    pub handler: String,
    /// Prepares the instance.
    pub initializer: HookName,
    /// Comes before parking.
    pub pre_freeze: HookName,
    /// Comes before the instance goes.
    pub pre_stop: HookName,
}

/// How a configuration names a hook's export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookName {
    /// The hook is not called.
    Disabled,
    /// The export of the hook's own name, if the component has it.
    Default,
    /// This export; it must be there.
    Named(String),
}

/// One export that fits.
#[derive(Clone)]
pub struct Export {
    /// Its name in the component.
    pub name: String,
    /// Whether it is asynchronous; only such exports share an instance.
    pub is_async: bool,
    pub(super) index: ComponentExportIndex,
}

/// The exports that a function uses of its component.
#[derive(Clone)]
pub struct Exports {
    /// Answers requests.
    pub handler: Export,
    /// Prepares the instance.
    pub initializer: Option<Export>,
    /// Comes before parking.
    pub pre_freeze: Option<Export>,
    /// Comes before the instance goes.
    pub pre_stop: Option<Export>,
}

pub(super) type HandlerParams = (CallContext, Vec<u8>);
pub(super) type HandlerResults = (Result<Vec<u8>, String>,);
pub(super) type InitializerResults = (Result<(), String>,);
pub(super) type HookParams = (CallContext,);
pub(super) type HookResults = ();

const CONTEXT: &str = "record { request-id: string, function: string, version: string, instance-id: string, \
                       memory-mb: u32, deadline-ms: u64, attempt: u32, traceparent: option<string> }";

impl Exports {
    /// Finds the exports that `names` ask for, or says what does not fit.
    pub(super) fn find(compiled: &Compiled, names: &EntryNames) -> Result<Exports, Refusal> {
        let own = names.handler.as_str();
        let handler = find(compiled, own, Entry::Handler)?
            .ok_or_else(|| Refusal::NoHandler { wanted: own.to_owned(), found: function_names(compiled) })?;
        let hook = |name: &HookName, entry: Entry| match name {
            HookName::Disabled => Ok(None),
            HookName::Default => find(compiled, entry.as_str(), entry),
            HookName::Named(name) => match find(compiled, name, entry)? {
                Some(export) => Ok(Some(export)),
                None => {
                    Err(Refusal::NoHook { hook: entry.as_str(), wanted: name.clone(), found: function_names(compiled) })
                }
            },
        };
        Ok(Exports {
            handler,
            initializer: hook(&names.initializer, Entry::Initializer)?,
            pre_freeze: hook(&names.pre_freeze, Entry::PreFreeze)?,
            pre_stop: hook(&names.pre_stop, Entry::PreStop)?,
        })
    }

    /// The export that `entry` names, if the function has it.
    pub fn get(&self, entry: Entry) -> Option<&Export> {
        match entry {
            Entry::Handler => Some(&self.handler),
            Entry::Initializer => self.initializer.as_ref(),
            Entry::PreFreeze => self.pre_freeze.as_ref(),
            Entry::PreStop => self.pre_stop.as_ref(),
        }
    }
}

fn find(compiled: &Compiled, name: &str, entry: Entry) -> Result<Option<Export>, Refusal> {
    let Some((item, index)) = compiled.get_export(None, name) else { return Ok(None) };
    let wrong = |found: String| Refusal::WrongShape { name: name.to_owned(), found, wanted: wanted(entry) };
    let ComponentItem::ComponentFunc(func) = item else { return Err(wrong(kind(&item).to_owned())) };
    let component_type = compiled.component_type();
    let instance_type = component_type.instance_type();
    let fits = match entry {
        Entry::Handler => func.typecheck::<HandlerParams, HandlerResults>(&instance_type),
        Entry::Initializer => func.typecheck::<HookParams, InitializerResults>(&instance_type),
        Entry::PreFreeze | Entry::PreStop => func.typecheck::<HookParams, HookResults>(&instance_type),
    };
    if fits.is_err() {
        return Err(wrong(shape(&func)));
    }
    Ok(Some(Export { name: name.to_owned(), is_async: func.async_(), index }))
}

fn wanted(entry: Entry) -> String {
    match entry {
        Entry::Handler => format!("async func(ctx: {CONTEXT}, event: list<u8>) -> result<list<u8>, string>"),
        Entry::Initializer => format!("async func(ctx: {CONTEXT}) -> result<_, string>"),
        Entry::PreFreeze | Entry::PreStop => format!("async func(ctx: {CONTEXT})"),
    }
}

/// The names of everything a component exports, for a message.
fn function_names(compiled: &Compiled) -> Vec<String> {
    let engine = compiled.engine();
    compiled.component_type().exports(engine).map(|(name, item)| format!("{} `{name}`", kind(&item.ty))).collect()
}

fn kind(item: &ComponentItem) -> &'static str {
    match item {
        ComponentItem::ComponentFunc(_) => "func",
        ComponentItem::CoreFunc(_) => "core func",
        ComponentItem::Module(_) => "module",
        ComponentItem::Component(_) => "component",
        ComponentItem::ComponentInstance(_) => "interface",
        ComponentItem::Type(_) => "type",
        ComponentItem::Resource(_) => "resource",
    }
}

/// A function's type as WIT writes it.
fn shape(func: &ComponentFunc) -> String {
    let mut text = String::from(if func.async_() { "async func(" } else { "func(" });
    for (index, (name, ty)) in func.params().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(text, "{comma}{name}: {}", wit(&ty));
    }
    text.push(')');
    for result in func.results() {
        let _ = write!(text, " -> {}", wit(&result));
    }
    text
}

fn wit(ty: &Type) -> String {
    let fields = |open: &str, fields: Vec<String>| format!("{open} {{ {} }}", fields.join(", "));
    let optional = |ty: Option<Type>| ty.map_or_else(|| "_".to_owned(), |ty| wit(&ty));
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::S8 => "s8".to_owned(),
        Type::U8 => "u8".to_owned(),
        Type::S16 => "s16".to_owned(),
        Type::U16 => "u16".to_owned(),
        Type::S32 => "s32".to_owned(),
        Type::U32 => "u32".to_owned(),
        Type::S64 => "s64".to_owned(),
        Type::U64 => "u64".to_owned(),
        Type::Float32 => "f32".to_owned(),
        Type::Float64 => "f64".to_owned(),
        Type::Char => "char".to_owned(),
        Type::String => "string".to_owned(),
        Type::List(list) => format!("list<{}>", wit(&list.ty())),
        Type::Map(map) => format!("map<{}, {}>", wit(&map.key()), wit(&map.value())),
        Type::FixedLengthList(list) => format!("list<{}, {}>", wit(&list.ty()), list.len()),
        Type::Record(record) => {
            fields("record", record.fields().map(|field| format!("{}: {}", field.name, wit(&field.ty))).collect())
        }
        Type::Tuple(tuple) => format!("tuple<{}>", tuple.types().map(|ty| wit(&ty)).collect::<Vec<_>>().join(", ")),
        Type::Variant(variant) => fields("variant", variant.cases().map(|case| case.name.to_owned()).collect()),
        Type::Enum(cases) => fields("enum", cases.names().map(str::to_owned).collect()),
        Type::Flags(flags) => fields("flags", flags.names().map(str::to_owned).collect()),
        Type::Option(option) => format!("option<{}>", wit(&option.ty())),
        Type::Result(result) => format!("result<{}, {}>", optional(result.ok()), optional(result.err())),
        Type::Own(_) => "own<resource>".to_owned(),
        Type::Borrow(_) => "borrow<resource>".to_owned(),
        Type::Future(future) => format!("future<{}>", optional(future.ty())),
        Type::Stream(stream) => format!("stream<{}>", optional(stream.ty())),
        Type::ErrorContext => "error-context".to_owned(),
    }
}
