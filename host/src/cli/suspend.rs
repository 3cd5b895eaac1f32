//! `dormouse suspend`: an operator's hand on a function.

use crate::ids::FunctionName;

use super::client_args::ClientArgs;

/// Suspend a function, in the middle of its requests
///
/// Every instance of the function is paused within milliseconds, with its requests still in flight. It uses no CPU and
/// is charged nothing until `dormouse resume`, which resumes each request exactly where it was. A request's timeout is
/// paused as well. New requests wait.
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
        self.client.show(&answer, |()| format!("suspended {0}; `dormouse resume {0}` resumes it", self.name))
    }
}
