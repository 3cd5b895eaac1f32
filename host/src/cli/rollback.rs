//! `dormouse rollback`: moves an alias back.

use crate::ids::{AliasName, FunctionName};

use super::alias;
use super::client_args::ClientArgs;

/// Move an alias back to the version it named before
///
/// Shares that other versions had are dropped: all requests go to that version. Versions that were deleted meanwhile are
/// skipped. Doing it again goes back further.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dormouse rollback hello prod")]
pub(super) struct Rollback {
    /// The function
    name: FunctionName,
    /// The alias
    alias: AliasName,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Rollback {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = self.client.client()?.roll_back(&self.name, &self.alias).await?;
        self.client.show(&answer, alias::shown)
    }
}
