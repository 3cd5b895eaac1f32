//! `dormouse resume`: ends `dormouse suspend`.

use crate::ids::FunctionName;

use super::client_args::ClientArgs;

/// Resume a suspended function
///
/// Requests that were in flight continue with exactly the state they had, and new requests are served again.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dormouse resume hello")]
pub(super) struct Resume {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Resume {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = self.client.client()?.resume(&self.name).await?;
        self.client.show(&answer, |()| format!("resumed {}", self.name))
    }
}
