//! `dormouse versions`: what a function was published as.

use std::time::SystemTime;

use crate::admin::model::VersionList;
use crate::clock;
use crate::ids::{FunctionName, VersionNumber};

use super::client_args::ClientArgs;
use super::{output, units};

/// List the versions of a function, or delete one
///
/// The newest version comes first, each with the aliases that name it. A version that an alias names cannot be deleted; a
/// number is never used again, not after the function was deleted either.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse versions hello\n  dormouse versions hello --delete 3")]
pub(super) struct Versions {
    /// The function
    name: FunctionName,
    /// Delete this version; its instances finish their requests and stop
    #[arg(long, value_name = "VERSION")]
    delete: Option<VersionNumber>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Versions {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = self.client.client()?;
        if let Some(version) = self.delete {
            let answer = client.delete_version(&self.name, version).await?;
            return self.client.show(&answer, |()| format!("deleted version {version} of {}", self.name));
        }
        let answer = client.versions(&self.name).await?;
        self.client.show(&answer, |list| versions(list, &self.name, clock::date()))
    }
}

fn versions(list: &VersionList, name: &FunctionName, now: SystemTime) -> String {
    if list.versions.is_empty() {
        return format!("no versions yet; `dormouse publish {name}` publishes what is deployed");
    }
    let mut table = output::table(["version", "aliases", "size", "sha256", "published", "description"]);
    for version in &list.versions {
        let digest: String = version.sha256.chars().take(12).collect();
        table.add_row([
            output::figure(&version.version),
            output::text(&version.aliases.join(", ")),
            output::figure(units::bytes(version.component_bytes)),
            output::text(&digest),
            output::text(&units::ago(now, &version.created_at)),
            output::text(&version.description),
        ]);
    }
    output::rendered(&table)
}
