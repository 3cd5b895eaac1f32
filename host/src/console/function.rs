//! The page of one function: what it does, its settings with the lifecycle, its versions, aliases, triggers and asynchronous
//! invocations, and a place to call it.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::page::{self, Fragments};
use super::parts::Column::{Number, Text};
use super::parts::{action, figure, request_path, segment, state, states, table, time};
use super::{Seen, instances};
use crate::admin::model::{AliasList, AsyncInvocationList, FunctionView, TriggerList, TriggerView, VersionList};
use crate::catalog::{Hook, SettingsSpec};
use crate::figures::{bytes, count, cu, duration_ms, rate};
use crate::guest::Protocol;
use crate::ids::FunctionName;
use crate::web::problem::Failure;

/// Asynchronous invocations that are shown.
const INVOCATIONS: usize = 20;

/// Numbers among the settings: the name in the API, as people read it, and the unit.
const NUMBERS: [(&str, &str, &str); 9] = [
    ("memoryMb", "Memory", "MB"),
    ("timeoutMs", "Timeout", "ms"),
    ("concurrency", "Requests at once in an instance", ""),
    ("minInstances", "Instances that are always kept", ""),
    ("maxInstances", "Instances at most", ""),
    ("freezeAfterMs", "Parked after", "ms"),
    ("idleTimeoutMs", "Stopped after", "ms parked"),
    ("queueDepth", "Requests that may wait", ""),
    ("queueTimeoutMs", "They wait at most", "ms"),
];

/// The function that is shown.
pub(super) struct Shown {
    name: FunctionName,
}

impl Shown {
    pub(super) fn of(segment: &str) -> Option<Shown> {
        let name = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
        Some(Shown { name: name.parse().ok()? })
    }

    fn api(&self, rest: &str) -> String {
        format!("/v1/functions/{}{rest}", segment(self.name.as_str()))
    }

    async fn view(&self, seen: &Seen) -> Result<FunctionView, Failure> {
        seen.console.api.get(&seen.operator, &self.api("")).await
    }

    pub(super) async fn page(&self, seen: &Seen) -> Result<Markup, Failure> {
        let view = self.view(seen).await?;
        let versions: VersionList = seen.console.api.get(&seen.operator, &self.api("/versions")).await?;
        let exports = self.exports(seen).await;
        let fragments = self.fragments_of(seen, &view).await?;
        let main = page::live(fragments, |part| {
            html! {
                div id="summary" { (part("summary")) }
                (self.controls(&view))
                section aria-labelledby="lanes-title" {
                    h2 id="lanes-title" { "Instances" }
                    (instances::legend())
                    div id="lanes" { (part("lanes")) }
                }
                (self.invoke(&view))
                (self.settings(&view, &exports))
                section aria-labelledby="versions-title" { h2 id="versions-title" { "Versions and aliases" } (self.versions(&versions)) div id="aliases" { (part("aliases")) } (self.alias_form(&versions)) }
                section aria-labelledby="triggers-title" { h2 id="triggers-title" { "Triggers" } div id="triggers" { (part("triggers")) } }
                section aria-labelledby="async-title" { h2 id="async-title" { "Asynchronous invocations" } div id="invocations" { (part("invocations")) } }
                (self.code(&view))
            }
        });
        Ok(page::page(seen, "/", self.name.as_str(), main))
    }

    pub(super) async fn fragments(&self, seen: &Seen) -> Result<Fragments, Failure> {
        self.fragments_of(seen, &self.view(seen).await?).await
    }

    async fn fragments_of(&self, seen: &Seen, view: &FunctionView) -> Result<Fragments, Failure> {
        let (api, operator) = (&seen.console.api, &seen.operator);
        let aliases: AliasList = api.get(operator, &self.api("/aliases")).await?;
        let triggers: TriggerList = api.get(operator, &self.api("/triggers")).await?;
        let path = self.api(&format!("/invocations?limit={INVOCATIONS}"));
        let invocations: AsyncInvocationList = api.get(operator, &path).await?;
        let rate_now = seen.console.rates.of(&seen.console.host).get(&self.name).copied().unwrap_or_default();
        let today =
            seen.console.today.sums(&seen.console.host).await?.get(self.name.as_str()).cloned().unwrap_or_default();
        let summary = html! {
            @if let Some(fault) = &view.fault { p.wrong role="alert" { "Instances cannot be started: " (fault) } }
            @if let Some(reason) = &view.disabled { p.wrong { "Disabled: " (reason) } }
            @if view.suspended { p.wrong { "Suspended: its instances stand still, and new requests wait." } }
            dl.figures {
                (figure("Requests a second", &rate(rate_now.requests)))
                (figure("Failures a second", &rate(rate_now.failures)))
                (figure("Requests today", &count(today.requests)))
                (figure("Executed today", &duration_ms(today.executed_ms)))
                (figure("CU today", &cu(today.cu)))
                (figure("Parked memory today", &format!("{:.2} GB s", today.parked_gb_seconds)))
            }
            p { (states(view.instances)) }
        };
        let lanes = instances::lanes(seen, Some(&self.name)).await?;
        Ok(vec![
            ("summary", summary),
            ("lanes", lanes),
            ("aliases", self.aliases(&aliases)),
            ("triggers", self.triggers(&triggers)),
            ("invocations", self.invocations(&invocations)),
        ])
    }

    /// What the component exports, as choices; nothing if it cannot be looked at now.
    async fn exports(&self, seen: &Seen) -> Vec<String> {
        let Some(function) = seen.console.host.function(self.name.as_str()) else { return Vec::new() };
        let component = seen.console.host.component(&function.latest).await;
        component.map(|component| component.export_names()).unwrap_or_default()
    }

    fn controls(&self, view: &FunctionView) -> Markup {
        let path = |rest: &str| self.api(rest);
        html! {
            p.controls {
                @if view.suspended { (action("Resume", ("POST", &path("/resume")), None)) }
                @else { (action("Suspend", ("POST", &path("/suspend")), None)) }
                @if view.disabled.is_some() { (action("Enable", ("POST", &path("/enable")), None)) }
                @else { (action("Disable", ("POST", &path("/disable")), Some("Refuse its requests from now on?"))) }
                a href={ "/console/logs?function=" (segment(view.name.as_str())) } { "Log" }
                a href={ "/console/bill?function=" (segment(view.name.as_str())) } { "Bill" }
                a href={ "/console/keys?function=" (segment(view.name.as_str())) } { "Keys" }
                (action("Delete", ("DELETE", &path("")), Some("Delete the function with its versions and aliases?")))
            }
        }
    }

    fn invoke(&self, view: &FunctionView) -> Markup {
        let is_http = view.exports.protocol != Protocol::Event;
        html! {
            section.card aria-labelledby="invoke-title" {
                h2 id="invoke-title" { "Invoke" }
                form data-invoke=(self.api("/invoke")) data-function=(self.name) {
                    div.row {
                        label { "Version or alias" input name="qualifier" placeholder="LATEST" autocomplete="off"; }
                        @if is_http {
                            label { "Method" select name="method" { @for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"] { option { (method) } } } }
                            label { "Path" input name="path" value="/"; }
                        }
                        label { "Recent" select name="recent" { option value="" { "none" } } }
                    }
                    label { @if is_http { "Body" } @else { "Event" } textarea name="event" rows="4" spellcheck="false" {} }
                    button { "Invoke" }
                }
                div.answer aria-live="polite" hidden {
                    p { span data-told="status" {} " " span data-told="start" {} " " code data-told="timing" {} }
                    pre data-told="body" tabindex="0" {}
                    h3 { "Lines" }
                    pre data-told="lines" tabindex="0" {}
                    p { a data-told="log" href=(request_path(self.name.as_str(), "")) { "All lines of this request" } }
                }
            }
        }
    }

    fn settings(&self, view: &FunctionView, exports: &[String]) -> Markup {
        let settings = &view.settings;
        // Numbers are shown by their names in the API.
        let json = serde_json::to_value(settings).unwrap_or_default();
        let defaults = serde_json::to_value(SettingsSpec::default()).unwrap_or_default();
        let environment: String =
            settings.environment.iter().map(|(name, value)| format!("{name}={}\n", in_one_line(value))).collect();
        html! {
            section.card aria-labelledby="settings-title" {
                h2 id="settings-title" { "Settings" }
                form data-settings=(self.api("")) {
                    label { "Description" textarea name="description" rows="1" data-kind="text" { (settings.description) } p.wrong hidden {} }
                    div.grid {
                        @for (name, shown, unit) in NUMBERS { (number(name, (shown, unit), &json[name], &defaults[name])) }
                        (choice("auth", "Callers must show", settings.auth.map(|auth| json!(auth)), &[("", "what the host asks for"), ("none", "nothing"), ("key", "an access key")]))
                        (choice("billingBasis", "Charged for", settings.billing_basis.map(|basis| json!(basis)), &[("", "what the host charges for"), ("execution", "executed time"), ("duration", "time from start to end")]))
                    }
                    fieldset {
                        legend { "Lifecycle" }
                        p.hint { "Hooks are exports of the component. The handler answers requests; each hook may take its timeout at most." }
                        (hook("initializer", ("Initializer", "initializer", "once, before the first request"), &settings.lifecycle.initializer, exports))
                        (hook("preFreeze", ("Pre-freeze", "pre-freeze", "each time before the instance is parked"), &settings.lifecycle.pre_freeze, exports))
                        (hook("preStop", ("Pre-stop", "pre-stop", "once, before the instance is removed"), &settings.lifecycle.pre_stop, exports))
                    }
                    label { "Environment, a line for each: NAME=value, with \\n for a line break in a value and \\\\ for \\" textarea name="environment" rows="4" spellcheck="false" data-kind="pairs" { (environment) } p.wrong hidden {} }
                    label { "Hosts that it may reach, a line for each" textarea name="allowedOutboundHosts" rows="2" spellcheck="false" data-kind="lines" { (settings.allowed_outbound_hosts.join("\n")) } p.wrong hidden {} }
                    p.wrong data-rest hidden role="alert" {}
                    button { "Save" }
                }
            }
        }
    }

    fn versions(&self, versions: &VersionList) -> Markup {
        html! {
            @if versions.versions.is_empty() { p.empty { "No version is published." } } @else {
                (table("Versions", &[Text("Version"), Text("Published"), Text("Aliases"), Text("Description"), Text("")], html! {
                    @for version in &versions.versions {
                        tr {
                            th scope="row" { (version.version) }
                            td { (time(&version.created_at)) }
                            td { (version.aliases.join(", ")) }
                            td { (version.description) }
                            td { (action("Delete", ("DELETE", &self.api(&format!("/versions/{}", version.version))), Some("Delete this version?"))) }
                        }
                    }
                }))
            }
            p { (action("Publish what is deployed", ("POST", &self.api("/versions")), None)) }
        }
    }

    fn aliases(&self, aliases: &AliasList) -> Markup {
        html! {
            @if !aliases.aliases.is_empty() {
                (table("Aliases", &[Text("Alias"), Text("Version"), Text("Others"), Text("")], html! {
                    @for alias in &aliases.aliases {
                        tr data-alias=(alias.alias) {
                            th scope="row" { (alias.alias) }
                            td { (alias.version) }
                            td { @for (version, weight) in &alias.weights { span.tag { (version) " gets " (format!("{:.0} %", weight * 100.0)) } } }
                            td {
                                (action("Back", ("POST", &self.api(&format!("/aliases/{}/rollback", segment(&alias.alias)))), None))
                                (action("Delete", ("DELETE", &self.api(&format!("/aliases/{}", segment(&alias.alias)))), Some("Delete this alias?")))
                            }
                        }
                    }
                }))
            }
        }
    }

    /// Makes or moves an alias: the slider is the share of the other version.
    fn alias_form(&self, versions: &VersionList) -> Markup {
        html! {
            @if !versions.versions.is_empty() {
                form.card data-alias=(self.api("/aliases/")) {
                    div.row {
                        label { "Alias" input name="alias" required pattern="[A-Za-z_][A-Za-z0-9_\\-]*" placeholder="prod" autocomplete="off"; }
                        label { "Version" select name="version" { @for version in &versions.versions { option { (version.version) } } } }
                        label { "Another version" select name="other" { option value="" { "none" } @for version in &versions.versions { option { (version.version) } } } }
                        label { "gets " output name="shown" { "0 %" } input type="range" name="weight" min="0" max="100" step="1" value="0"; }
                    }
                    p.wrong data-rest hidden role="alert" {}
                    button { "Set" }
                }
            }
        }
    }

    fn triggers(&self, triggers: &TriggerList) -> Markup {
        let what = |trigger: &TriggerView| match (&trigger.trigger.timer, &trigger.address) {
            (Some(timer), _) => {
                timer.cron.clone().unwrap_or_else(|| format!("every {} ms", timer.every_ms.unwrap_or_default()))
            }
            (None, address) => address.clone().unwrap_or_default(),
        };
        html! {
            @if triggers.triggers.is_empty() { p.empty { "None." } } @else {
                (table("Triggers", &[Text("Trigger"), Text("What"), Text("Next"), Text("Last runs"), Text("")], html! {
                    @for trigger in &triggers.triggers {
                        tr {
                            th scope="row" { (trigger.name) @if !trigger.trigger.is_enabled() { span.tag { "disabled" } } }
                            td { code { (what(trigger)) } }
                            td { @if let Some(next) = trigger.next.first() { (time(next)) } }
                            td { @for run in trigger.runs.iter().take(5) { (state(run.state.as_deref().unwrap_or("forgotten"))) " " } }
                            td { @if trigger.trigger.timer.is_some() { (action("Fire", ("POST", &self.api(&format!("/triggers/{}/fire", segment(&trigger.name)))), None)) } }
                        }
                    }
                }))
            }
        }
    }

    fn invocations(&self, list: &AsyncInvocationList) -> Markup {
        let path = |id: &str, what: &str| self.api(&format!("/invocations/{}/{what}", segment(id)));
        html! {
            @if list.invocations.is_empty() { p.empty { "None." } } @else {
                (table("Asynchronous invocations", &[Text("Identifier"), Text("State"), Number("Attempts"), Text("Accepted"), Text("Result"), Text("")], html! {
                    @for one in &list.invocations {
                        tr {
                            th scope="row" { a href=(request_path(self.name.as_str(), one.request.as_deref().unwrap_or(&one.id))) { code { (one.id) } } }
                            td { (state(one.state.as_str())) }
                            td.number { (one.attempts) }
                            td { (time(&one.accepted_at)) }
                            td { (one.code.as_deref().unwrap_or_default()) " " (one.detail) }
                            td {
                                @if one.ended_at.is_none() { (action("Stop", ("POST", &path(&one.id, "stop")), None)) }
                                @else { (action("Replay", ("POST", &path(&one.id, "replay")), None)) }
                            }
                        }
                    }
                }))
            }
        }
    }

    fn code(&self, view: &FunctionView) -> Markup {
        html! {
            section.card aria-labelledby="code-title" {
                h2 id="code-title" { "Code" }
                p { (bytes(view.component_bytes)) ", revision " (view.revision) ", deployed " (time(&view.updated_at)) }
                p { code.long { (view.sha256) } }
                form data-upload data-name=(self.name) {
                    label.drop { "New component (.wasm): drop it here or choose it" input type="file" name="component" accept=".wasm,application/wasm" required; }
                    button { "Deploy" }
                    progress hidden max="100" aria-label="Upload" {}
                    p.told role="status" {}
                }
            }
        }
    }
}

/// A value of the environment, as the form has it.
fn in_one_line(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn number(name: &str, (shown, unit): (&str, &str), value: &Value, default: &Value) -> Markup {
    html! {
        label {
            (shown) @if !unit.is_empty() { " (" (unit) ")" }
            input type="number" name=(name) value=(value) data-kind="number" placeholder=(default) min="0";
            p.hint { "Default: " (default) }
            p.wrong hidden {}
        }
    }
}

fn choice(name: &str, shown: &str, value: Option<Value>, choices: &[(&str, &str)]) -> Markup {
    let value = value.as_ref().and_then(Value::as_str).unwrap_or_default();
    html! {
        label { (shown) select name=(name) data-kind="choice" { @for (own, words) in choices { option value=(own) selected[*own == value] { (words) } } } p.wrong hidden {} }
    }
}

fn hook(name: &str, (shown, export, when): (&str, &str, &str), hook: &Hook, exports: &[String]) -> Markup {
    let own = hook.handler.as_deref();
    let is_listed = own.is_none_or(|own| own.is_empty() || exports.iter().any(|export| export == own));
    let is_there = exports.iter().any(|own| own == export);
    html! {
        div.hook role="group" aria-label=(shown) {
            strong { (shown) } " " span.hint { (when) }
            label {
                "Export"
                select name={ "lifecycle." (name) ".handler" } data-kind="choice" data-empty="disabled" {
                    option value="default" selected[own.is_none()] { (export) @if is_there { " (default)" } @else { " (default; the component has none)" } }
                    option value="disabled" selected[own == Some("")] { "disabled" }
                    @for export in exports { option value=(export) selected[own == Some(export)] { (export) } }
                    @if let (false, Some(own)) = (is_listed, own) { option value=(own) selected { (own) } }
                }
                p.wrong hidden {}
            }
            label {
                "Timeout (ms)"
                input type="number" name={ "lifecycle." (name) ".timeoutMs" } value=(hook.timeout_ms) min="1" data-kind="number";
                p.wrong hidden {}
            }
        }
    }
}
