//! `dormouse suspend`: an operator's hand on a function.

use crate::ids::FunctionName;

use super::client::ClientArgs;

/// Stop a function where it stands, in the middle of its requests
///
/// Every instance of the function is parked at its next epoch check, within milliseconds, with its requests still in
/// flight. It uses no CPU and is charged nothing until `dormouse resume`, which lets each request go on exactly where
/// it was. A request's timeout stands still meanwhile. New requests wait.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dormouse suspend hello")]
pub(super) struct Suspend {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Suspend {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = self.client.client()?.suspend(&self.name).await?;
        self.client.show(&answer, |()| format!("suspended {0}; `dormouse resume {0}` lets it go on", self.name))
    }
}
