//! `dormouse keys`: access keys of a host.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Subcommand;

use crate::access::{FunctionPattern, Right};
use crate::admin::model::{CreateKeyRequest, KeyList, KeyView, KeyWithSecret, RotateKeyRequest};
use crate::clock;
use crate::ids::KeyId;

use super::client_args::ClientArgs;
use super::output;
use super::units::{self, Later};

/// The longest time for which an old secret may still work.
const GRACE_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Make, list, rotate and revoke access keys
///
/// A key is for functions, by name or prefix, and for what it may do with them: `invoke` calls them, `read` shows them, their
/// logs and their usage, `manage` changes them and includes the others. A key for `*` that may `manage` is an operator's. Its
/// secret is shown once, when it is made or rotated.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse keys create --functions 'shop-*' --allow invoke --description 'the shop'\n  \
    dormouse keys create --functions hello,cart --allow read --allow invoke --expires 90d\n  \
    dormouse keys list\n  \
    dormouse keys rotate dmk-0123456789abcdef --grace 1h\n  \
    dormouse keys revoke dmk-0123456789abcdef")]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key, and show its secret
    Create(Create),
    /// List the keys, without their secrets
    List(List),
    /// Give a key another secret, and show it
    Rotate(Rotate),
    /// Revoke a key: it stops working at once
    Revoke(Revoke),
}

#[derive(clap::Args)]
struct Create {
    /// The functions it is for: names, prefixes such as `shop-*`, or `*` for all; separated by commas, or repeated
    #[arg(long, required = true, value_name = "FUNCTIONS", value_delimiter = ',')]
    functions: Vec<FunctionPattern>,
    /// What it may do with them; separated by commas, or repeated
    #[arg(long = "allow", required = true, value_name = "RIGHTS", value_delimiter = ',')]
    rights: Vec<Right>,
    /// What it is for, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// When it ends: in how long (`12h`, `90d`), a day, or RFC 3339 [default: never]
    #[arg(long, value_name = "TIME")]
    expires: Option<Later>,
    /// Calls of functions that it may make in a second [default: any number]
    #[arg(long, value_name = "COUNT")]
    requests_per_second: Option<u32>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(clap::Args)]
struct Rotate {
    /// The key's identifier: what is before the dot
    id: KeyId,
    /// For how long the old secret still works, such as `1h` or `7d`; at most 30 days
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = grace)]
    grace: Duration,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(clap::Args)]
struct Revoke {
    /// The key's identifier: what is before the dot
    id: KeyId,
    #[command(flatten)]
    client: ClientArgs,
}

/// Reads for how long an old secret still works.
fn grace(text: &str) -> anyhow::Result<Duration> {
    let time = humantime::parse_duration(text).ok().filter(|time| *time <= GRACE_MAX);
    time.context("write a time of at most 30 days, such as `30m`, `12h` or `7d`")
}

impl Keys {
    pub(super) fn client(&mut self) -> &mut ClientArgs {
        match &mut self.command {
            Command::Create(command) => &mut command.client,
            Command::List(command) => &mut command.client,
            Command::Rotate(command) => &mut command.client,
            Command::Revoke(command) => &mut command.client,
        }
    }

    /// What it means if it fails.
    pub(super) fn failure(&self) -> String {
        match &self.command {
            Command::Create(_) => "failed to make a key".to_owned(),
            Command::List(_) => "failed to list the keys".to_owned(),
            Command::Rotate(command) => format!("failed to rotate `{}`", command.id),
            Command::Revoke(command) => format!("failed to revoke `{}`", command.id),
        }
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Create(command) => command.run().await,
            Command::List(List { client }) => {
                let answer = client.client()?.keys().await?;
                client.show(&answer, |list| keys(list, clock::date()))
            }
            Command::Rotate(Rotate { id, grace, client }) => {
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                let answer = client.client()?.rotate_key(id, &RotateKeyRequest { grace_ms }).await?;
                client.show(&answer, secret)
            }
            Command::Revoke(Revoke { id, client }) => {
                let answer = client.client()?.revoke_key(id).await?;
                client.show(&answer, |()| format!("revoked {id}"))
            }
        }
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let wanted = CreateKeyRequest {
            functions: self.functions.iter().map(ToString::to_string).collect(),
            rights: self.rights,
            description: self.description,
            expires_at: self.expires.map(Later::rfc3339),
            requests_per_second: self.requests_per_second,
        };
        let answer = self.client.client()?.create_key(&wanted).await?;
        self.client.show(&answer, secret)
    }
}

/// A key with its secret, which goes to a pipe alone: `KEY=$(dormouse keys create ...)`.
fn secret(made: &KeyWithSecret) -> String {
    output::note(&format!(
        "{} may {} {}. Send it as `Authorization: Bearer KEY`. This is its only copy:",
        made.key.id,
        rights(&made.key),
        made.key.functions.join(", ")
    ));
    made.token.clone()
}

fn rights(key: &KeyView) -> String {
    key.rights.iter().map(|right| right.as_str()).collect::<Vec<_>>().join(", ")
}

fn keys(list: &KeyList, now: SystemTime) -> String {
    if list.keys.is_empty() {
        return "no keys yet; `dormouse keys create` makes one".to_owned();
    }
    let mut table =
        output::table(["key", "functions", "may", "requests/s", "made", "last used", "expires", "description"]);
    for key in &list.keys {
        let ago =
            |time: &Option<String>, none: &str| time.as_ref().map_or(none.to_owned(), |time| units::ago(now, time));
        table.add_row([
            output::text(&key.id),
            output::text(&key.functions.join(", ")),
            output::text(&rights(key)),
            output::figure(key.requests_per_second.map_or(String::new(), |limit| units::count(limit.into()))),
            output::text(&ago(&key.created_at, "")),
            output::text(&ago(&key.last_used_at, "never")),
            output::text(key.expires_at.as_deref().unwrap_or("never")),
            output::text(&key.description),
        ]);
    }
    output::rendered(&table)
}
