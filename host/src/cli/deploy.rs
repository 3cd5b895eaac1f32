//! `dormouse deploy`: puts components and their settings on a host. `up` uses it too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::header::HeaderValue;
use serde_json::{Map, Value};

use crate::admin::model::{AliasRequest, AliasView, FunctionView};
use crate::catalog::{HttpTriggerSpec, SettingsSpec};
use crate::ids::FunctionName;

use super::answer::Answer;
use super::build;
use super::client::{Client, Upload};
use super::client_args::ClientArgs;
use super::component;
use super::manifest::{Manifest, ManifestAlias, ManifestFunction};
use super::output;
use super::progress::Progress;
use super::serverless::Template;
use super::spelling::{self, Assignment};
use super::units;

/// Components on their way at once; the host compiles with every core anyway.
const AT_ONCE: usize = 4;
/// How much of a component is handed to the connection at a time, which is how finely the bar moves.
const CHUNK_BYTES: usize = 64 * 1024;

/// Deploy functions: all of a manifest, or one component
///
/// The manifest replaces all settings; omitted ones are reset to their defaults, and its aliases are set afterwards.
/// With a name and a file, only the settings given with `--set` change, and a new function starts with the defaults.
/// Code and settings take effect together; requests that are running finish on the old version.
///
/// With `--template`, deploys an `s.yaml` as the tools of Function Compute do: source code is built first, and what the file
/// leaves out stays as it is on the host.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse deploy\n  \
    dormouse deploy examples --function hello --build\n  \
    dormouse deploy -t s.yaml\n  \
    dormouse deploy hello hello.wasm --set memory-mb=256 --set environment.LEVEL=debug")]
pub(super) struct Deploy {
    /// The manifest or its folder; with a component, the function's name
    #[arg(default_value = ".", value_name = "MANIFEST|NAME")]
    target: String,
    /// A file of Serverless Devs, `s.yaml`, in the place of a manifest; source code in it is built first
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["target", "file", "component", "set"])]
    template: Option<PathBuf>,
    /// The component to deploy as the function NAME
    #[arg(value_name = "COMPONENT", conflicts_with = "component")]
    file: Option<PathBuf>,
    /// The component, if you prefer to name it
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Only this function of the manifest; may be repeated
    #[arg(long = "function", value_name = "NAME", conflicts_with_all = ["file", "component"])]
    functions: Vec<FunctionName>,
    /// Run the manifest's build commands first
    #[arg(long, conflicts_with_all = ["file", "component"])]
    build: bool,
    /// A setting, as in `memory-mb=256` or `lifecycle.pre-stop.handler=bye`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

/// What a function shall become.
pub(super) struct Deployment {
    pub(super) name: FunctionName,
    pub(super) component: PathBuf,
    /// The whole configuration; `None` keeps what the host has.
    pub(super) settings: Option<SettingsSpec>,
    /// What is changed on top of it.
    pub(super) set: Vec<Assignment>,
    /// The aliases that name it then.
    pub(super) aliases: Vec<ManifestAlias>,
}

impl Deploy {
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let client = self.client.client()?;
        let progress = Progress::new();
        if let Some(template) = self.template.take() {
            return self.run_template(&template, &client, &progress).await;
        }
        let Some(component) = self.file.take().or(self.component.take()) else {
            return self.run_manifest(&client, &progress).await;
        };
        let name = self.target.parse()?;
        let deployment = Deployment { name, component, settings: None, set: self.set, aliases: Vec::new() };
        let answer = deploy(&client, &deployment, &progress).await?;
        let url = client.url_of(&answer.value).await?;
        self.client.show(&answer, |view| shown(view, url.as_str()))
    }

    /// What an `s.yaml` leaves out stays as it is on the host, as with the tools that it was written for.
    async fn run_template(self, path: &Path, client: &Client, progress: &Progress) -> anyhow::Result<()> {
        let template = Template::read(path)?.only(&self.functions)?;
        build::build(&template.manifest(), progress).await?;
        template.deploy(client, progress).await?;
        let mut answers = Vec::new();
        for resource in &template.resources {
            answers.push(client.function(&resource.name).await?);
        }
        self.show_all(client, answers).await
    }

    async fn run_manifest(self, client: &Client, progress: &Progress) -> anyhow::Result<()> {
        if !Path::new(&self.target).exists() && self.target.parse::<FunctionName>().is_ok() {
            bail!("there is no manifest `{0}`; to deploy one component: `dormouse deploy {0} FILE`", self.target);
        }
        let manifest = Manifest::read(Path::new(&self.target))?.only(&self.functions)?;
        if self.build {
            build::build(&manifest, progress).await?;
        }
        let deployments = manifest.functions.iter().map(|function| function.deployment(self.set.clone()));
        let answers = deploy_all(client, deployments.collect(), progress).await?;
        self.show_all(client, answers).await
    }

    async fn show_all(&self, client: &Client, answers: Vec<Answer<FunctionView>>) -> anyhow::Result<()> {
        let json = answers.iter().map(|answer| answer.json.trim()).collect::<Vec<_>>().join(",");
        let all = Answer { json: format!("{{\"functions\":[{json}]}}"), value: answers };
        let mut lines = Vec::new();
        for answer in &all.value {
            lines.push(shown(&answer.value, client.url_of(&answer.value).await?.as_str()));
            lines.extend(addresses(&answer.value, client.data().await?.as_str()));
        }
        self.client.show(&all, |_| lines.join("\n"))
    }
}

impl ManifestFunction {
    /// The deployment that makes the host's function what the manifest says.
    pub(super) fn deployment(&self, set: Vec<Assignment>) -> Deployment {
        Deployment {
            name: self.name.clone(),
            component: self.component.clone(),
            settings: Some(self.settings.clone()),
            set,
            aliases: self.aliases.clone(),
        }
    }
}

/// Deploys several functions at once; the answers keep the order. The first failure ends it.
pub(super) async fn deploy_all(
    client: &Client,
    deployments: Vec<Deployment>,
    progress: &Progress,
) -> anyhow::Result<Vec<Answer<FunctionView>>> {
    let one = |deployment: Deployment| async move { deploy(client, &deployment, progress).await };
    stream::iter(deployments).map(one).buffered(AT_ONCE).try_collect().await
}

/// Deploys one function, and waits until the host has compiled it.
async fn deploy(client: &Client, deployment: &Deployment, progress: &Progress) -> anyhow::Result<Answer<FunctionView>> {
    let Deployment { name, component, settings, set, aliases } = deployment;
    let bytes = component::read(component).await?;
    let mut patch = match settings {
        Some(settings) => patch_to(settings, client.function_if_any(name).await?.as_ref())?,
        None => Map::new(),
    };
    spelling::assign(&mut patch, set);
    let step = progress.step(name.as_str(), "upload");
    let component_bytes = bytes.len() as u64;
    step.measure(component_bytes);
    let upload = upload(Bytes::from(bytes), step.bar());
    let putting = client.put_code(name, upload, header(&Value::Object(patch))?);
    let uploaded = async {
        let bar = step.bar();
        while bar.position() < component_bytes {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        step.doing("compile");
        std::future::pending().await
    };
    let answer = tokio::select! {
        answer = putting => answer,
        never = uploaded => never,
    };
    let answer = answer.with_context(|| format!("function `{name}`"))?;
    step.done(&format!("deployed revision {}", answer.value.revision));
    set_aliases(client, name, aliases).await?;
    Ok(answer)
}

/// Lets the aliases of a manifest name what it says. Publishes `LATEST` where one of them names that.
pub(super) async fn set_aliases(client: &Client, name: &FunctionName, aliases: &[ManifestAlias]) -> anyhow::Result<()> {
    if aliases.is_empty() {
        return Ok(());
    }
    let there = client.aliases(name).await?.value.aliases;
    for ManifestAlias { alias, version, weights } in aliases {
        let version = match version {
            Some(version) => version.to_string(),
            None => newest_version(client, name).await?,
        };
        let weights: BTreeMap<String, f64> =
            weights.iter().map(|(version, share)| (version.to_string(), *share)).collect();
        let same =
            |view: &AliasView| view.alias == alias.as_str() && view.version == version && view.weights == weights;
        if !there.iter().any(same) {
            let wanted = AliasRequest { version: Some(version), weights, description: None };
            client.set_alias(name, alias, &wanted).await.with_context(|| format!("alias `{alias}` of `{name}`"))?;
        }
    }
    Ok(())
}

/// The version that `LATEST` is published as; publishes it if it is not.
async fn newest_version(client: &Client, name: &FunctionName) -> anyhow::Result<String> {
    Ok(match client.function(name).await?.value.published {
        Some(version) => version,
        None => client.publish(name, String::new()).await?.value.version,
    })
}

/// The merge patch that gives the host's function exactly these settings.
fn patch_to(settings: &SettingsSpec, current: Option<&FunctionView>) -> anyhow::Result<Map<String, Value>> {
    let current = current.map(|view| view.settings.clone()).unwrap_or_default();
    Ok(spelling::merge_patch(&serde_json::to_value(current)?, &serde_json::to_value(settings)?))
}

/// JSON for a header, in which only ASCII is sure to arrive.
fn header(patch: &Value) -> anyhow::Result<HeaderValue> {
    let mut ascii = String::new();
    for letter in patch.to_string().chars() {
        if letter.is_ascii() && !letter.is_ascii_control() {
            ascii.push(letter);
        } else {
            let mut units = [0; 2];
            ascii.extend(letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Ok(HeaderValue::try_from(ascii)?)
}

/// The component in chunks, each counted when the connection takes it.
fn upload(component: Bytes, bar: indicatif::ProgressBar) -> Upload {
    let bytes = component.len() as u64;
    let chunks = stream::unfold(component, move |mut rest| {
        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
        bar.inc(chunk.len() as u64);
        std::future::ready((!chunk.is_empty()).then_some((Ok::<Bytes, std::convert::Infallible>(chunk), rest)))
    });
    Upload { body: reqwest::Body::wrap_stream(chunks), bytes }
}

/// The addresses of a function's own.
fn addresses(view: &FunctionView, data: &str) -> Vec<String> {
    let http = view.settings.triggers.values().filter_map(|trigger| trigger.http.as_ref());
    let address = |http: &HttpTriggerSpec| {
        let path = http.path.as_deref().unwrap_or("/*").trim_start_matches('/').trim_end_matches('*');
        match &http.host {
            Some(host) => format!("  host {}: /{}", output::plain(host), output::plain(path)),
            None => format!("  {data}{}", output::plain(path)),
        }
    };
    http.map(address).collect()
}

fn shown(view: &FunctionView, url: &str) -> String {
    let size = units::bytes(view.component_bytes);
    format!("{}: revision {}, {size}, {url}", output::plain(&view.name), view.revision)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_travel_as_ascii() {
        let patch = json!({"description": "größer 🐭\u{7f}\n", "memoryMb": 256});
        let header = header(&patch).unwrap();
        let text = header.to_str().unwrap();
        assert!(text.is_ascii() && !text.contains('\n'), "{text}");
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), patch);
    }

    #[test]
    fn a_new_function_is_told_only_what_differs_from_the_defaults() {
        let settings = SettingsSpec { memory_mb: 256, ..SettingsSpec::default() };
        assert_eq!(Value::Object(patch_to(&settings, None).unwrap()), json!({"memoryMb": 256}));
    }

    #[tokio::test]
    async fn an_upload_is_whole_and_counted() {
        let component = Bytes::from(vec![7; CHUNK_BYTES * 2 + 5]);
        let bar = indicatif::ProgressBar::hidden();
        let upload = upload(component.clone(), bar.clone());
        let body = http_body_util::BodyExt::collect(upload.body).await.unwrap().to_bytes();
        assert_eq!((body, upload.bytes), (component.clone(), component.len() as u64));
        assert_eq!(bar.position(), component.len() as u64);
    }
}
