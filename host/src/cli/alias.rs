//! `dormouse alias`: names for versions.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::Context as _;
use clap::Subcommand;

use crate::admin::model::{AliasList, AliasRequest, AliasView};
use crate::ids::{AliasName, FunctionName, VersionNumber};

use super::client_args::ClientArgs;
use super::output;

/// Name versions, and move names from one to the next
///
/// Callers use an alias as they use a version: `?qualifier=prod`, or `/fn/hello:prod/` for HTTP functions. Moving it is one
/// step, in which no request is lost. With `--weight` other versions get a share of the requests; requests with the same
/// `Dormouse-Affinity` header always get the same version.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse alias set hello prod 1\n  \
    dormouse alias set hello prod 1 --weight 2=0.1\n  \
    dormouse alias list hello\n  \
    dormouse alias delete hello prod")]
pub(super) struct Alias {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make an alias, or move it
    Set(Set),
    /// List the aliases of a function
    List(List),
    /// Delete an alias; the versions stay
    Delete(Delete),
}

#[derive(clap::Args)]
struct Set {
    /// The function
    name: FunctionName,
    /// The alias
    alias: AliasName,
    /// The version that it names
    version: VersionNumber,
    /// A share of the requests for another version, such as `2=0.1` for one in ten; may be repeated
    #[arg(long = "weight", value_name = "VERSION=SHARE")]
    weights: Vec<Weight>,
    /// What it is for, for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(clap::Args)]
struct List {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(clap::Args)]
struct Delete {
    /// The function
    name: FunctionName,
    /// The alias
    alias: AliasName,
    #[command(flatten)]
    client: ClientArgs,
}

/// `2=0.1`.
#[derive(Clone, Debug)]
struct Weight(VersionNumber, f64);

impl FromStr for Weight {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Weight> {
        let wanted = "write it as `VERSION=SHARE`, for example `2=0.1`";
        let (version, share) = text.split_once('=').context(wanted)?;
        Ok(Weight(version.parse()?, share.parse().context(wanted)?))
    }
}

impl Alias {
    pub(super) fn name(&self) -> &FunctionName {
        match &self.command {
            Command::Set(command) => &command.name,
            Command::List(command) => &command.name,
            Command::Delete(command) => &command.name,
        }
    }

    pub(super) fn client(&mut self) -> &mut ClientArgs {
        match &mut self.command {
            Command::Set(command) => &mut command.client,
            Command::List(command) => &mut command.client,
            Command::Delete(command) => &mut command.client,
        }
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Set(command) => command.run().await,
            Command::List(command) => {
                let answer = command.client.client()?.aliases(&command.name).await?;
                command.client.show(&answer, |list| aliases(list, &command.name))
            }
            Command::Delete(command) => {
                let answer = command.client.client()?.delete_alias(&command.name, &command.alias).await?;
                command.client.show(&answer, |()| format!("deleted alias {} of {}", command.alias, command.name))
            }
        }
    }
}

impl Set {
    async fn run(self) -> anyhow::Result<()> {
        let weights: BTreeMap<String, f64> =
            self.weights.iter().map(|Weight(version, share)| (version.to_string(), *share)).collect();
        let wanted = AliasRequest { version: Some(self.version.to_string()), weights, description: self.description };
        let answer = self.client.client()?.set_alias(&self.name, &self.alias, &wanted).await?;
        self.client.show(&answer, shown)
    }
}

/// An alias and what it names: `prod of hello: version 1, and 10 % to version 2`.
pub(super) fn shown(alias: &AliasView) -> String {
    let shares =
        alias.weights.iter().map(|(version, share)| format!(", and {} % to version {version}", percent(*share)));
    format!("{} of {}: version {}{}", alias.alias, alias.function, alias.version, shares.collect::<String>())
}

/// A share in percent, without the noise of binary fractions.
fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

fn aliases(list: &AliasList, name: &FunctionName) -> String {
    if list.aliases.is_empty() {
        return format!("no aliases yet; `dormouse alias set {name} prod VERSION` makes one");
    }
    let mut table = output::table(["alias", "version", "shares of others", "before", "description"]);
    for alias in &list.aliases {
        let shares = alias.weights.iter().map(|(version, share)| format!("{version}: {} %", percent(*share)));
        table.add_row([
            output::text(&alias.alias),
            output::figure(&alias.version),
            output::text(&shares.collect::<Vec<_>>().join(", ")),
            output::text(alias.earlier.last().map_or("", String::as_str)),
            output::text(&alias.description),
        ]);
    }
    output::rendered(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_and_shown_as_people_write_them() {
        let Weight(version, share) = "2=0.1".parse().unwrap();
        assert_eq!((version.as_u64(), percent(share)), (2, 10.0));
        assert_eq!(percent(0.07), 7.0);
        for bad in ["2", "=0.1", "x=0.1", "2=much"] {
            assert!(bad.parse::<Weight>().is_err(), "{bad}");
        }
    }
}
