//! `dormouse login`: makes a host known by a name.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use reqwest::{StatusCode, Url};
use serde_json::json;

use super::client::Client;
use super::client_args::ClientArgs;
use super::client_error::ClientError;
use super::output;
use super::profiles::{DEFAULT, Profile, Profiles};

/// Keep the address and key of a host under a name
///
/// `dormouse --host NAME list` talks to that host then, as do all commands; those that name no host talk to the one that is
/// called `default`. The key is asked for on a terminal, so that it is in no shell's history. Everything is kept in
/// `dormouse/hosts.toml` in XDG_CONFIG_HOME or `~/.config`, which only its owner can read.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse login prod --admin https://shop.example:8443\n  \
    dormouse --host prod list\n  \
    dormouse login --list\n  \
    dormouse login prod --forget")]
pub(super) struct Login {
    /// The name of the host: letters, digits, `.`, `_` and `-`
    #[arg(default_value = DEFAULT, value_parser = name)]
    name: String,
    /// List the known hosts, without their keys
    #[arg(long, conflicts_with = "forget")]
    list: bool,
    /// Forget the host and its key
    #[arg(long)]
    forget: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

fn name(text: &str) -> anyhow::Result<String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    if text.is_empty() || !text.chars().all(is_plain) {
        bail!("choose letters, digits, `.`, `_` and `-`");
    }
    Ok(text.to_owned())
}

impl Login {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut profiles = Profiles::read()?;
        if self.list {
            return Ok(output::print(&if self.client.json { hosts_as_json(&profiles) } else { hosts(&profiles) })?);
        }
        if self.forget {
            profiles.get(&self.name)?;
            profiles.hosts.remove(&self.name);
            profiles.write()?;
            return Ok(output::print(&format!("forgot {}", self.name))?);
        }
        if self.client.host.is_some() {
            bail!("`dormouse login NAME` says which host; leave --host out");
        }
        let Some(admin) = self.client.admin.clone() else {
            bail!("say where the host is: `dormouse login {} --admin URL`", self.name);
        };
        let mut profile = self.client.over(None);
        for path in [&mut profile.trust.ca, &mut profile.trust.client_cert].into_iter().flatten() {
            *path = absolute(path)?;
        }
        if profile.key.is_none() && io::stdin().is_terminal() {
            let asked = rpassword::prompt_password(format!("Access key for {admin} (empty for none): "))?;
            profile.key = Some(asked.trim().to_owned()).filter(|key| !key.is_empty());
        }
        let client = Client::new(admin, profile.data.clone(), profile.key.as_deref(), &profile.trust)?;
        let host = client.host().await;
        if let (None, Err(ClientError::Refused(problem))) = (&profile.key, &host)
            && problem.status == StatusCode::UNAUTHORIZED.as_u16()
        {
            bail!("the host wants an access key: give it with `--key`, or use a terminal to be asked for it");
        }
        let host = host?;
        profiles.hosts.insert(self.name.clone(), profile);
        profiles.write()?;
        let call = if self.name == DEFAULT {
            "dormouse list".to_owned()
        } else {
            format!("dormouse --host {} list", self.name)
        };
        self.client.show(&host, |host| {
            format!("{} is known, and takes you for {}; `{call}` talks to it", self.name, host.operator)
        })
    }
}

/// Commands run in other folders later.
fn absolute(path: &PathBuf) -> anyhow::Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("find {}", path.display()))
}

/// A key without its secret; the identifier is none.
fn shown_key(key: Option<&str>) -> Option<&str> {
    key.map(|key| key.split_once('.').map_or("admin-token", |(id, _)| id))
}

fn hosts_as_json(profiles: &Profiles) -> String {
    let host = |(name, profile): (&String, &Profile)| json!({"name": name, "admin": profile.admin.as_ref().map(Url::as_str), "key": shown_key(profile.key.as_deref())});
    json!({"hosts": profiles.hosts.iter().map(host).collect::<Vec<_>>()}).to_string()
}

fn hosts(profiles: &Profiles) -> String {
    if profiles.hosts.is_empty() {
        return format!(
            "no hosts are known; `dormouse login NAME --admin URL` writes them to {}",
            profiles.path().display()
        );
    }
    let mut table = output::table(["host", "admin", "key"]);
    for (name, Profile { admin, key, .. }) in &profiles.hosts {
        table.add_row([
            output::text(name),
            output::text(admin.as_ref().map_or("", Url::as_str)),
            output::text(shown_key(key.as_deref()).unwrap_or("none")),
        ]);
    }
    output::rendered(&table)
}
