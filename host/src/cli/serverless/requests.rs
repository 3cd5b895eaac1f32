//! Deploys a file: the requests that Function Compute's clients would send, so that one host answers both alike. What a file
//! leaves out stays as it is.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use super::Template;
use super::resource::{Object, Resource};
use crate::cli::client::Client;
use crate::cli::component;
use crate::cli::progress::{Progress, Step};
use crate::fc::code_checksum;

/// A version that is published for the purpose.
const LATEST: &str = "LATEST";

impl Template {
    /// Deploys all of it, one after another.
    pub(in crate::cli) async fn deploy(&self, client: &Client, progress: &Progress) -> anyhow::Result<()> {
        for resource in &self.resources {
            let step = progress.step(resource.name.as_str(), "deploy");
            let warnings = Deployment::of(client, resource).run(&step).await;
            let warnings = warnings.with_context(|| format!("function `{}`", resource.name))?;
            step.done("deployed");
            warnings.iter().for_each(|warning| progress.note(&format!("{}: {warning}", resource.name)));
        }
        self.notes.iter().for_each(|note| progress.note(note));
        Ok(())
    }
}

/// One function on its way.
struct Deployment<'a> {
    client: &'a Client,
    resource: &'a Resource,
    api: &'static str,
    service: Option<&'a str>,
    own: &'a str,
}

type Path<'a> = Vec<&'a str>;

impl<'a> Deployment<'a> {
    fn of(client: &'a Client, resource: &'a Resource) -> Deployment<'a> {
        let (service, own) = resource.name.parts();
        let api = if service.is_some() { "2016-08-15" } else { "2023-03-30" };
        Deployment { client, resource, api, service, own }
    }

    /// Deploys it; says what has no effect.
    async fn run(&self, step: &Step) -> anyhow::Result<Vec<String>> {
        let mut warnings = Vec::new();
        let mut note = |view: &Value| {
            let told = view["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
            warnings.extend(told.map(str::to_owned));
        };
        if let (Some(service), Some(fields)) = (self.service, &self.resource.service) {
            note(&self.put((&[], "services", service), fields).await.context("service")?);
        }
        step.doing("upload and compile");
        note(&self.function().await?);
        step.doing("set what belongs to it");
        let function = self.function_path();
        for trigger in &self.resource.triggers {
            let name = trigger.get("triggerName").and_then(Value::as_str).unwrap_or_default();
            note(&self.put((&function, "triggers", name), trigger).await.with_context(|| format!("trigger `{name}`"))?);
        }
        for (name, config) in [
            ("async-invoke-config", &self.resource.asynchronous),
            ("concurrency", &self.resource.concurrency),
            ("provision-config", &self.resource.provision),
            ("scaling-config", &self.resource.scaling),
        ] {
            if let Some(config) = config {
                let path = [function.as_slice(), &[name]].concat();
                let mut config = config.clone();
                // It is a part of the address.
                let qualifier = config.remove("qualifier").and_then(|qualifier| qualifier.as_str().map(str::to_owned));
                let query: Vec<_> = qualifier.map(|qualifier| ("qualifier", qualifier)).into_iter().collect();
                let set = self.client.fc(Method::PUT, &path, &query, Some(&Value::Object(config))).await;
                note(&set.with_context(|| name.to_owned())?.unwrap_or_default());
            }
        }
        for alias in &self.resource.aliases {
            let name = alias.get("aliasName").and_then(Value::as_str).unwrap_or_default();
            self.alias(name, alias).await.with_context(|| format!("alias `{name}`"))?;
        }
        for domain in &self.resource.domains {
            let name = domain.get("domainName").and_then(Value::as_str).unwrap_or_default();
            note(&self.put((&[], "custom-domains", name), domain).await.with_context(|| format!("domain `{name}`"))?);
        }
        Ok(warnings)
    }

    fn function_path(&self) -> Path<'a> {
        let service = self.service.map(|service| vec!["services", service]).unwrap_or_default();
        [vec![self.api], service, vec!["functions", self.own]].concat()
    }

    async fn function(&self) -> anyhow::Result<Value> {
        let component = component::read(&self.resource.component).await?;
        let path = self.function_path();
        let before = self.client.fc(Method::GET, &path, &[], None).await?;
        let mut fields = self.resource.fields.clone();
        fields.insert("functionName".to_owned(), self.own.into());
        // Code that is there already need not be compiled again.
        let is_same = |view: &Value| view["codeChecksum"].as_str() == Some(&code_checksum(&component));
        if !before.as_ref().is_some_and(is_same) {
            fields.insert("code".to_owned(), json!({"zipFile": STANDARD.encode(&component)}));
        }
        let body = Value::Object(fields);
        let sent = match before {
            Some(_) => self.client.fc(Method::PUT, &path, &[], Some(&body)).await?,
            None => self.client.fc(Method::POST, &path[..path.len() - 1], &[], Some(&body)).await?,
        };
        Ok(sent.unwrap_or_default())
    }

    /// Makes what has this name in a list what `fields` say, whether it is there or not.
    async fn put(&self, (at, list, name): (&[&str], &str, &str), fields: &Object) -> anyhow::Result<Value> {
        let at = if at.is_empty() { &[self.api] } else { at };
        let own = [at, &[list, name]].concat();
        let body = Value::Object(fields.clone());
        let sent = match self.client.fc(Method::GET, &own, &[], None).await? {
            Some(_) => self.client.fc(Method::PUT, &own, &[], Some(&body)).await?,
            None => self.client.fc(Method::POST, &own[..own.len() - 1], &[], Some(&body)).await?,
        };
        Ok(sent.unwrap_or_default())
    }

    /// An alias belongs to the service, where there is one.
    async fn alias(&self, name: &str, alias: &Object) -> anyhow::Result<()> {
        let owner = match self.service {
            Some(service) => vec![self.api, "services", service],
            None => self.function_path(),
        };
        let mut alias = alias.clone();
        let version = alias.get("versionId").map(|version| match version {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        let version = match version.filter(|version| version != LATEST) {
            Some(version) => version,
            None => {
                let path = [owner.as_slice(), &["versions"]].concat();
                let published = self.client.fc(Method::POST, &path, &[], Some(&json!({}))).await?.unwrap_or_default();
                published["versionId"].as_str().unwrap_or_default().to_owned()
            }
        };
        alias.insert("versionId".to_owned(), version.into());
        self.put((&owner, "aliases", name), &alias).await?;
        Ok(())
    }
}
