//! Which host a command talks to, and what it shows there.

use anyhow::bail;
use reqwest::Url;

use super::address::address;
use super::answer::Answer;
use super::client::Client;
use super::output;
use super::profiles::{DEFAULT, Profile, Profiles};
use super::trust::Trust;

/// Where a host's admin plane listens by default.
const ADMIN_ADDRESS: &str = "http://127.0.0.1:8081";

/// Where the host is, and how it shows its answers.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Host")]
pub(super) struct ClientArgs {
    /// The name of a host that `dormouse login` knows; it stands before the command. Set by `main`
    #[arg(skip)]
    pub(super) host: Option<String>,
    /// The admin plane's address [default: of the host that `dormouse login` made the default, else http://127.0.0.1:8081]
    #[arg(long, env = "DORMOUSE_ADMIN", value_name = "URL", value_parser = address)]
    pub(super) admin: Option<Url>,
    /// The data plane's address [default: the host at the admin address says where it is]
    #[arg(long, env = "DORMOUSE_DATA", value_name = "URL", value_parser = address)]
    pub(super) data: Option<Url>,
    /// An access key, or the host's admin token, for both planes [default: what `dormouse login` keeps for the host; for a host
    /// that it does not know, DORMOUSE_ADMIN_TOKEN]
    #[arg(long, env = "DORMOUSE_KEY", value_name = "KEY", hide_env_values = true)]
    pub(super) key: Option<String>,
    /// So that the variable that `serve` reads serves its operator as well.
    #[arg(long, env = "DORMOUSE_ADMIN_TOKEN", hide = true, hide_env_values = true)]
    pub(super) admin_token: Option<String>,
    #[command(flatten)]
    pub(super) trust: Trust,
    /// Print the API's JSON, for programs
    #[arg(long)]
    pub(super) json: bool,
}

impl ClientArgs {
    /// A client for that host.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let kept = self.kept()?;
        // A key that is kept for the host is not for whoever else is said to have its data plane.
        let elsewhere = kept.is_some() && self.key.is_none() && self.data.is_some();
        let profile = self.over(kept);
        let admin = profile.admin.map_or_else(|| address(ADMIN_ADDRESS), Ok)?;
        let client = Client::new(admin, profile.data, profile.key.as_deref(), &profile.trust)?;
        Ok(if elsewhere { client.without_key_for_data() } else { client })
    }

    /// What `dormouse login` keeps of the host. It is for that host, and shown to no other.
    fn kept(&self) -> anyhow::Result<Option<Profile>> {
        Ok(match (&self.host, &self.admin) {
            (Some(_), Some(_)) => {
                bail!("--host (DORMOUSE_HOST) and --admin (DORMOUSE_ADMIN) both say which host; leave one out")
            }
            (Some(name), None) => Some(Profiles::read()?.get(name)?),
            (None, Some(_)) => None,
            (None, None) => Profiles::read()?.hosts.remove(DEFAULT),
        })
    }

    /// What was written for this command, over what is kept.
    pub(super) fn over(&self, kept: Option<Profile>) -> Profile {
        let own = Profile {
            admin: self.admin.clone(),
            data: self.data.clone(),
            key: self.key.clone(),
            trust: self.trust.clone(),
        };
        match kept {
            Some(kept) => own.over(kept),
            None => Profile { key: own.key.or_else(|| self.admin_token.clone()), ..own },
        }
    }

    /// Prints an answer: as it came for programs, as `people` puts it otherwise.
    pub(super) fn show<T>(&self, answer: &Answer<T>, people: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let text = if self.json { answer.json.trim_end().to_owned() } else { people(&answer.value) };
        Ok(output::print(&text)?)
    }
}
