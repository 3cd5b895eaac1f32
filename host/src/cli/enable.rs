//! `dormouse enable`: ends `dormouse disable`.

use crate::ids::FunctionName;

use super::client_args::ClientArgs;

/// Take requests of a disabled function again
///
/// Instances that are still parked from before serve the first ones.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dormouse enable hello")]
pub(super) struct Enable {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Enable {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = self.client.client()?.enable(&self.name).await?;
        self.client.show(&answer, |()| format!("enabled {}", self.name))
    }
}
