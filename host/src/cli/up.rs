//! `dormouse up`: a whole project at once. Starts a host, builds and deploys everything in the manifest, and with
//! `--watch` does so again when sources change.
//!
//! Deploying goes through the admin plane as it does for everybody else; only the host happens to be in this process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use comfy_table::ContentArrangement;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::admin::model::FunctionView;
use crate::catalog::SettingsSpec;
use crate::config::ServeArgs;
use crate::ids::FunctionName;

use super::client::Client;
use super::deploy::{Deployment, deploy_all, set_aliases};
use super::echo::Echo;
use super::hosting::{self, Started};
use super::manifest::Manifest;
use super::progress::Progress;
use super::serverless::Template;
use super::shell::quoted;
use super::trust::Trust;
use super::watch::Sources;
use super::{build, component, output};

/// Build, deploy and serve everything in a manifest
///
/// Starts a host in this process, builds the functions of `dormouse.toml`, deploys them, and shows how to call each.
/// With `--watch` it follows the sources: what changed is built and deployed again, and while a build fails the
/// version before goes on serving. What functions print is shown on standard error, each line behind its function's name and `|`; behind `!` is what the
/// host has to say about their instances. Ctrl-C stops the host in order, so every instance's pre-stop hook runs.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse up\n  \
    dormouse up examples --watch\n  \
    dormouse up -t s.yaml\n  \
    dormouse up --function hello --data-addr 127.0.0.1:9000")]
pub(super) struct Up {
    /// The manifest, or the folder that has it
    #[arg(default_value = ".")]
    manifest: PathBuf,
    /// A file of Serverless Devs, `s.yaml`, in the place of a manifest
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["manifest", "watch"])]
    template: Option<PathBuf>,
    /// Only this function; may be repeated
    #[arg(long = "function", value_name = "NAME")]
    functions: Vec<FunctionName>,
    /// Build and deploy again when sources change
    #[arg(long, short)]
    watch: bool,
    /// Do not show what functions print, and what the host has to say about their instances
    #[arg(long, short)]
    quiet: bool,
    /// Print the addresses and then the functions as lines of JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

impl Up {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // A manifest with faults is no reason to start a host.
        let project = match &self.template {
            Some(template) => Files::Template(Template::read(template)?.only(&self.functions)?),
            None => Files::Manifest(Manifest::read(&self.manifest)?.only(&self.functions)?),
        };
        let folder = match &project {
            Files::Template(template) => &template.folder,
            Files::Manifest(manifest) => &manifest.folder,
        };
        // A project has one catalog and one bill, wherever the command is called.
        let Started { mut server, addresses, admin_token, state_dir } = hosting::start(self.serve, folder).await?;
        if self.json {
            hosting::announce_as_json(&addresses)?;
        }
        let has_tls = server.has_tls();
        let (admin, data) = (hosting::url(addresses.admin, has_tls), hosting::url(addresses.data, has_tls));
        if !self.json {
            output::print(&format!("console: {admin}/"))?;
        }
        // It is this very process that answers, whatever name its certificate has.
        let trust = Trust { insecure: true, ..Trust::default() };
        let client = Client::new(admin.parse()?, Some(data.parse()?), admin_token.as_deref(), &trust)?;
        let progress = Progress::new();
        let echo = (!self.quiet && !self.json).then(|| Echo::new(client.clone(), progress.clone()));
        let mut host = Project {
            manifest: self.manifest,
            functions: self.functions,
            client,
            progress,
            echo,
            state_dir,
            deployed: BTreeMap::new(),
            is_shown: false,
            as_json: self.json,
        };
        let work = async {
            let manifest = match &project {
                Files::Template(template) => return host.bring_up_template(template).await,
                Files::Manifest(manifest) => manifest,
            };
            // Watched from before the first build, so that what is saved meanwhile is not missed.
            let mut sources = self.watch.then(|| Sources::watch(&manifest.folder)).transpose()?;
            if let Some(sources) = &mut sources {
                sources.leave_out(&host.not_sources(manifest));
            }
            let brought_up = host.bring_up(manifest).await;
            let Some(sources) = sources else {
                brought_up?;
                return std::future::pending().await;
            };
            if let Err(error) = brought_up {
                host.note_failure(&error, "the first change of a source begins again");
            }
            host.follow(sources).await
        };
        // Work ends only by failing. The host stops in order then too: it may have instances by now.
        let worked = tokio::select! {
            () = server.told_to_stop() => Ok(()),
            worked = work => worked,
        };
        let stopped = server.stop().await;
        hosting::farewell(&stopped?, self.json)?;
        worked
    }
}

/// What is brought up.
enum Files {
    Manifest(Manifest),
    Template(Template),
}

/// A manifest on its host.
struct Project {
    manifest: PathBuf,
    functions: Vec<FunctionName>,
    client: Client,
    progress: Progress,
    /// Shows what functions print; none: that is not wanted.
    echo: Option<Echo>,
    state_dir: PathBuf,
    /// What the host has of each function.
    deployed: BTreeMap<FunctionName, (String, SettingsSpec)>,
    /// How to call the functions has been shown.
    is_shown: bool,
    as_json: bool,
}

impl Project {
    /// Builds and deploys all functions and shows them.
    async fn bring_up(&mut self, manifest: &Manifest) -> anyhow::Result<()> {
        // The state directory may hold them from last time; what is the same needs no new revision.
        for function in &manifest.functions {
            if let Some(view) = self.client.function_if_any(&function.name).await? {
                self.deployed.insert(function.name.clone(), (view.sha256, view.settings));
            }
        }
        self.update(manifest).await?;
        self.show(manifest).await
    }

    /// The same for an `s.yaml`, which is not followed.
    async fn bring_up_template(&mut self, template: &Template) -> anyhow::Result<()> {
        let manifest = template.manifest();
        build::build(&manifest, &self.progress).await?;
        template.deploy(&self.client, &self.progress).await?;
        self.show(&manifest).await?;
        std::future::pending().await
    }

    async fn show(&mut self, manifest: &Manifest) -> anyhow::Result<()> {
        self.show_output(manifest);
        self.is_shown = true;
        let text = match self.as_json {
            true => self.ready(manifest).await?,
            false => self.table(manifest).await?,
        };
        // A program may have read the addresses and closed its end; the host goes on for its callers.
        let _ = output::print(&text);
        Ok(())
    }

    fn show_output(&mut self, manifest: &Manifest) {
        if let Some(echo) = &mut self.echo {
            echo.follow(manifest.functions.iter().map(|function| &function.name));
        }
    }

    /// Builds and deploys again whenever sources change; ends only if the watch itself does.
    async fn follow(&mut self, mut sources: Sources) -> anyhow::Result<()> {
        loop {
            let changed = sources.changed().await?;
            let names = changed.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy());
            self.progress.note(&format!("changed: {}", output::plain(&names.collect::<Vec<_>>().join(", "))));
            if let Err(error) = self.update_again(&mut sources).await {
                self.note_failure(&error, "what was deployed before goes on serving");
            }
        }
    }

    fn note_failure(&self, error: &anyhow::Error, next: &str) {
        self.progress.note(&format!("{} {error:#}", output::red("error:")));
        self.progress.note(next);
    }

    async fn update_again(&mut self, sources: &mut Sources) -> anyhow::Result<()> {
        let manifest = self.read()?;
        sources.leave_out(&self.not_sources(&manifest));
        if !self.is_shown {
            return self.bring_up(&manifest).await;
        }
        if self.update(&manifest).await? == 0 {
            self.progress.note("nothing to deploy: the components and settings are the same");
        }
        self.show_output(&manifest);
        Ok(())
    }

    /// What changes in the folder without the author's hand: the host's state, and components built here.
    fn not_sources(&self, manifest: &Manifest) -> Vec<PathBuf> {
        let built = manifest.functions.iter().filter(|function| function.build.is_some());
        let made = manifest.functions.iter().filter(|function| function.source.is_some());
        let made = made.filter_map(|function| function.component.parent().map(Path::to_owned));
        built.map(|function| function.component.clone()).chain(made).chain([self.state_dir.clone()]).collect()
    }

    fn read(&self) -> anyhow::Result<Manifest> {
        Manifest::read(&self.manifest)?.only(&self.functions)
    }

    /// Builds everything, and deploys what is not on the host as it is here; says how many functions that were.
    async fn update(&mut self, manifest: &Manifest) -> anyhow::Result<usize> {
        build::build(manifest, &self.progress).await?;
        let mut changed = Vec::new();
        for function in &manifest.functions {
            let component = component::read(&function.component).await?;
            let now = (hex::encode(Sha256::digest(&component)), function.settings.clone());
            if self.deployed.get(&function.name) != Some(&now) {
                changed.push((function, now));
            } else {
                set_aliases(&self.client, &function.name, &function.aliases).await?;
            }
        }
        let deployments: Vec<Deployment> =
            changed.iter().map(|(function, _)| function.deployment(Vec::new())).collect();
        let count = deploy_all(&self.client, deployments, &self.progress).await?.len();
        self.deployed.extend(changed.into_iter().map(|(function, now)| (function.name.clone(), now)));
        Ok(count)
    }

    /// The second line for programs: each function as the API shows it, and where it is called.
    async fn ready(&self, manifest: &Manifest) -> anyhow::Result<String> {
        let mut functions = Vec::new();
        for function in &manifest.functions {
            let answer = self.client.function(&function.name).await?;
            let mut view: Value = serde_json::from_str(&answer.json)?;
            view["url"] = self.client.url_of(&answer.value).await?.as_str().into();
            functions.push(view);
        }
        Ok(json!({"ready": true, "functions": functions}).to_string())
    }

    async fn table(&self, manifest: &Manifest) -> anyhow::Result<String> {
        let mut table = output::table(["function", "description", "try it"]);
        // A wrapped command could not be pasted.
        table.set_content_arrangement(ContentArrangement::Disabled);
        for function in &manifest.functions {
            let view = self.client.function(&function.name).await?.value;
            table.add_row([
                output::text(function.name.as_str()),
                output::text(&view.settings.description),
                output::text(&curl(self.client.url_of(&view).await?.as_str(), &view, function.example.as_deref())),
            ]);
        }
        Ok(format!("\n{}\n\nCtrl-C stops: every instance's pre-stop runs", output::rendered(&table)))
    }
}

/// A line to paste into a shell.
fn curl(url: &str, function: &FunctionView, example: Option<&str>) -> String {
    match example {
        Some(path) if function.exports.takes_http() && path.starts_with('/') => {
            format!("curl '{}{}'", url.trim_end_matches('/'), quoted(path))
        }
        Some(event) => format!("curl -d '{}' {url}", quoted(event)),
        None if function.exports.takes_http() => format!("curl {url}"),
        None => format!("curl -X POST {url}"),
    }
}
