//! A `dormouse.toml` of a file of Serverless Devs, for those who go on without the latter.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::resource::Resource;
use super::{BUILD_FOLDER, Template};
use crate::catalog::SettingsSpec;
use crate::cli::spelling;
use crate::fc::Written;

/// What a component is made of, as a manifest says it.
const SOURCE: &str = "source";

impl Template {
    /// The manifest's text, and what of the file is not in it.
    pub(in crate::cli) fn to_manifest(&self) -> anyhow::Result<(String, Vec<String>)> {
        let mut notes = self.notes.clone();
        let mut functions = toml::Table::new();
        for resource in &self.resources {
            let table =
                table(resource, &self.folder, &mut notes).with_context(|| format!("function `{}`", resource.name))?;
            functions.insert(resource.name.to_string(), toml::Value::Table(table));
        }
        let text = toml::to_string_pretty(&toml::Table::from_iter([("functions".to_owned(), functions.into())]))?;
        let from = self.path.file_name().unwrap_or_default().to_string_lossy();
        Ok((format!("# Made of {from} by `dormouse new --from`.\n\n{text}"), notes))
    }
}

fn table(resource: &Resource, folder: &Path, notes: &mut Vec<String>) -> anyhow::Result<toml::Table> {
    let written = Written {
        name: &resource.name,
        fields: &resource.fields,
        triggers: &resource.triggers,
        asynchronous: resource.asynchronous.as_ref(),
        domains: &resource.domains,
    };
    let (settings, warnings) = written.settings().map_err(|fault| anyhow::anyhow!(fault))?;
    notes.extend(warnings.iter().map(|warning| format!("{}: {warning}", resource.name)));
    for (what, instead, is_there) in [
        ("`concurrencyConfig` is", "set `max-instances` in the manifest", resource.concurrency.is_some()),
        ("`provisionConfig` is", "set `min-instances` in the manifest", resource.provision.is_some()),
        ("`scalingConfig` is", "set `min-instances` in the manifest", resource.scaling.is_some()),
        ("aliases are", "set them with `dormouse alias set`", !resource.aliases.is_empty()),
        ("`actions` are", "set `build` in the manifest", resource.build.is_some()),
    ] {
        if is_there {
            notes.push(format!("{}: {what} not carried over; {instead}", resource.name));
        }
    }
    let relative = |path: &Path| -> anyhow::Result<toml::Value> {
        let path = path.strip_prefix(folder).unwrap_or(path);
        match path.to_str() {
            Some(text) => Ok(text.trim_start_matches("./").into()),
            None => bail!("{} is not UTF-8", path.display()),
        }
    };
    let mut table = toml::Table::new();
    table.insert("component".to_owned(), relative(&resource.component)?);
    if let Some(source) = &resource.source {
        let runtime = resource.fields.get("runtime").and_then(Value::as_str).unwrap_or_default();
        let handlers: Vec<toml::Value> = source.handlers.iter().map(|handler| handler.as_str().into()).collect();
        table.insert(
            SOURCE.to_owned(),
            toml::Value::Table(toml::Table::from_iter([
                ("folder".to_owned(), relative(&source.folder)?),
                ("runtime".to_owned(), runtime.into()),
                ("handlers".to_owned(), handlers.into()),
            ])),
        );
        debug_assert!(resource.component.starts_with(folder.join(BUILD_FOLDER)), "it is built there");
    }
    // What only clients of the APIs read is of no use in a manifest.
    let settings = SettingsSpec { function_compute: Map::new(), ..settings };
    let (Value::Object(settings), defaults) =
        (serde_json::to_value(&settings)?, serde_json::to_value(SettingsSpec::default())?)
    else {
        bail!("settings are a table");
    };
    let differing = spelling::merge_patch(&defaults, &Value::Object(settings));
    for (path, value) in spelling::leaves(&differing) {
        insert(&mut table, &spelling::kebab_path(&path), &value)?;
    }
    Ok(table)
}

fn insert(table: &mut toml::Table, path: &[String], value: &Value) -> anyhow::Result<()> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    if rest.is_empty() {
        table.insert(first.clone(), toml::Value::try_from(value)?);
        return Ok(());
    }
    let inner = table.entry(first.clone()).or_insert_with(|| toml::Table::new().into());
    inner.as_table_mut().map_or(Ok(()), |inner| insert(inner, rest, value))
}
