//! `dormouse stop`: ends one instance in order.

use crate::ids::InstanceId;

use super::client_args::ClientArgs;

/// Stop one instance gracefully
///
/// The instance takes no new request, finishes those it has, runs its pre-stop hook and is dropped. The function stays:
/// the next request finds another instance or starts one. `dormouse show NAME` lists the instances of a function.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dormouse stop i-0123456789abcdef")]
pub(super) struct Stop {
    /// The instance, `i-` and 16 hexadecimal digits
    instance: InstanceId,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Stop {
    pub(super) fn instance(&self) -> InstanceId {
        self.instance
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = self.client.client()?.stop(self.instance).await?;
        self.client.show(&answer, |()| format!("stopping {}; its pre-stop hook runs first", self.instance))
    }
}
