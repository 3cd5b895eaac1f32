//! `dormouse show`: one function with its configuration and its instances.

use std::time::SystemTime;

use comfy_table::Table;
use serde_json::Value;

use crate::admin::model::FunctionView;
use crate::catalog::ExportView;
use crate::clock;
use crate::ids::FunctionName;

use super::client_args::ClientArgs;
use super::{instances, list, output, spelling, units};

/// Show one function: its code, what it exports, its settings and its instances
///
/// Settings are named as in `dormouse.toml`, ready to be changed there or with `dormouse deploy --set`. With `--json`
/// it is the function alone, as the API shows it.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse show hello\n  dormouse show hello --json | jq .memoryMb")]
pub(super) struct Show {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Show {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = self.client.client()?;
        let function = client.function(&self.name).await?;
        let instances = match self.client.json {
            true => Vec::new(),
            false => client.instances(&self.name).await?.value.instances,
        };
        let url = client.url_of(&function.value).await?;
        self.client.show(&function, |function| {
            let now = clock::date();
            let parts = [
                summary(function, now, url.as_str()),
                section("Exports", &exports(function)),
                section("Settings", &settings(function)),
                section("Instances", &instances::table(&instances, now, false)),
            ];
            parts.join("\n\n")
        })
    }
}

fn section(title: &str, body: &str) -> String {
    format!("{}\n{body}", output::bold(title))
}

fn summary(function: &FunctionView, now: SystemTime, url: &str) -> String {
    let digest: String = function.sha256.chars().take(12).collect();
    let updated = format!("{} ({})", units::ago(now, &function.updated_at), function.updated_at);
    pairs([
        ("function", function.name.clone()),
        ("description", function.settings.description.clone()),
        ("url", url.to_owned()),
        ("revision", revision(function)),
        ("versions", format!("{}; aliases: {}", function.versions, function.aliases)),
        ("component", format!("{}, sha256 {digest}", units::bytes(function.component_bytes))),
        ("created", function.created_at.clone()),
        ("updated", updated),
        ("instances", list::instances(&function.instances, list::mark(function))),
        ("state", state(function)),
    ])
}

fn revision(function: &FunctionView) -> String {
    match &function.published {
        Some(version) => format!("{} (LATEST, published as version {version})", function.revision),
        None => format!("{} (LATEST)", function.revision),
    }
}

/// Whether it takes requests, and if not, why.
fn state(function: &FunctionView) -> String {
    match (&function.fault, &function.disabled, function.suspended) {
        (Some(fault), _, _) => format!("cannot start: {fault}"),
        (None, Some(reason), _) => format!("disabled: {reason}; `dormouse enable {}` enables it", function.name),
        (None, None, true) => format!("suspended; `dormouse resume {}` resumes it", function.name),
        (None, None, false) => "takes requests".to_owned(),
    }
}

fn exports(function: &FunctionView) -> String {
    let exports = &function.exports;
    let shown = |export: Option<&ExportView>| match export {
        None => "-".to_owned(),
        Some(export) => format!("{} ({})", export.name, if export.r#async { "asynchronous" } else { "synchronous" }),
    };
    let serves = match exports.capacity.requests_max {
        Some(1) => "one request in its life".to_owned(),
        Some(most) => format!("{most} requests in its life"),
        None if exports.shares() => "several requests at once".to_owned(),
        None => "one request at a time".to_owned(),
    };
    pairs([
        ("an instance can serve", serves),
        ("handler", shown(Some(&exports.handler))),
        ("initializer", shown(exports.initializer.as_ref())),
        ("pre-freeze", shown(exports.pre_freeze.as_ref())),
        ("pre-stop", shown(exports.pre_stop.as_ref())),
    ])
}

/// All settings, in the manifest's spelling.
fn settings(function: &FunctionView) -> String {
    let Ok(Value::Object(settings)) = serde_json::to_value(&function.settings) else { return String::new() };
    pairs(spelling::leaves(&settings).into_iter().filter(|(path, _)| path[0] != "description").map(|(path, value)| {
        let value = match value {
            Value::String(text) if !text.is_empty() => text,
            other => other.to_string(),
        };
        (spelling::spelled(&path), value)
    }))
}

fn pairs<Name: AsRef<str>>(pairs: impl IntoIterator<Item = (Name, String)>) -> String {
    let mut table: Table = output::table([]);
    for (name, value) in pairs {
        table.add_row([output::text(name.as_ref()), output::text(&value)]);
    }
    output::rendered(&table)
}
