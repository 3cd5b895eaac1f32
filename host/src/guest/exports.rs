//! What a component must export, looked up by name and shape once, at deploy.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component as Compiled, ComponentExportIndex};

use super::call::{CallContext, Entry};
use super::hooks::Request;
use super::refusal::Refusal;

/// The exports that a function's configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryNames {
    /// Answers requests.
    pub handler: String,
    /// Prepares the instance.
    pub initializer: HookName,
    /// Runs before the instance is parked.
    pub pre_freeze: HookName,
    /// Runs before the instance is dropped.
    pub pre_stop: HookName,
}

/// How a configuration names a hook's export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookName {
    /// The hook is not called.
    Disabled,
    /// The export with the hook's own name, if the component has one.
    Default,
    /// This export; it must exist.
    Named(String),
}

/// What a handler is called with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Protocol {
    /// An event: world `function` of `wit/function.wit`.
    #[default]
    #[serde(rename = "event")]
    Event,
    /// An HTTP request: `wasi:http/incoming-handler@0.2`.
    #[serde(rename = "wasi:http@0.2")]
    Http02,
    /// An HTTP request: `wasi:http/handler@0.3`.
    #[serde(rename = "wasi:http@0.3")]
    Http03,
}

/// An export with the expected name and type.
#[derive(Clone)]
pub struct Export {
    /// Its name in the component.
    pub name: String,
    /// True if it is asynchronous: only such exports can run several calls at once in an instance.
    pub is_async: bool,
    pub(super) index: ComponentExportIndex,
}

/// How a hook is called.
#[derive(Clone)]
pub enum Hook {
    /// By its export.
    Export(Export),
    /// By an HTTP request to the handler, as Function Compute does it.
    Request(Request),
}

impl Hook {
    /// The hook's request, if it is called by one.
    pub fn request(&self) -> Option<&Request> {
        match self {
            Hook::Export(_) => None,
            Hook::Request(request) => Some(request),
        }
    }
}

/// The exports of a component that a function uses.
#[derive(Clone)]
pub struct Exports {
    /// What the handler is called with.
    pub protocol: Protocol,
    /// Answers requests.
    pub handler: Export,
    /// Prepares the instance.
    pub initializer: Option<Hook>,
    /// Runs before the instance is parked.
    pub pre_freeze: Option<Hook>,
    /// Runs before the instance is dropped.
    pub pre_stop: Option<Hook>,
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
        let (protocol, handler) = match find(compiled, own, Entry::Handler)? {
            Some(handler) => (Protocol::Event, handler),
            None => find_http(compiled)?
                .ok_or_else(|| Refusal::NoHandler { wanted: own.to_owned(), found: function_names(compiled) })?,
        };
        let hook = |name: &HookName, entry: Entry| match name {
            HookName::Disabled => Ok(None),
            HookName::Default => Ok(find(compiled, entry.as_str(), entry)?.map(Hook::Export)),
            HookName::Named(name) => match (find(compiled, name, entry)?, Request::of(entry)) {
                (Some(export), _) => Ok(Some(Hook::Export(export))),
                (None, Some(request)) if protocol != Protocol::Event => Ok(Some(Hook::Request(request))),
                (None, _) => {
                    Err(Refusal::NoHook { hook: entry.as_str(), wanted: name.clone(), found: function_names(compiled) })
                }
            },
        };
        Ok(Exports {
            protocol,
            handler,
            initializer: hook(&names.initializer, Entry::Initializer)?,
            pre_freeze: hook(&names.pre_freeze, Entry::PreFreeze)?,
            pre_stop: hook(&names.pre_stop, Entry::PreStop)?,
        })
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

/// The `wasi:http` handler of a component; the newer one if it has both versions.
fn find_http(compiled: &Compiled) -> Result<Option<(Protocol, Export)>, Refusal> {
    for (protocol, interface, params) in
        [(Protocol::Http03, "wasi:http/handler@0.3.0", 1), (Protocol::Http02, "wasi:http/incoming-handler@0.2.0", 2)]
    {
        // The engine finds every version that is compatible with this one.
        let Some((_, index)) = compiled.get_export(None, interface) else { continue };
        let name = format!("{interface}#handle");
        let Some((ComponentItem::ComponentFunc(func), index)) = compiled.get_export(Some(&index), "handle") else {
            return Err(Refusal::NoHandler { wanted: name, found: function_names(compiled) });
        };
        // The types of these resources can be checked only in an instance. Their number tells drafts from the final
        // version.
        if func.params().len() != params || !func.params().all(|(_, ty)| matches!(ty, Type::Own(_))) {
            let wanted = format!("func of {params} resources, as in {interface}");
            return Err(Refusal::WrongShape { name, found: shape(&func), wanted });
        }
        return Ok(Some((protocol, Export { name, is_async: func.async_(), index })));
    }
    Ok(None)
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
