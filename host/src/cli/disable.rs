//! `dormouse disable`: a function that refuses requests.

use crate::ids::FunctionName;

use super::client_args::ClientArgs;

/// Refuse requests of a function, with a reason
///
/// Callers get `403 function-disabled` and the reason. Requests that run are answered, and instances stay until their idle
/// timeout. `dormouse enable` ends it. To stop what runs as well, in the middle of its work, there is `dormouse suspend`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dormouse disable hello --reason 'moved to hello2'")]
pub(super) struct Disable {
    /// The function
    name: FunctionName,
    /// What callers are told
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Disable {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = self.client.client()?.disable(&self.name, self.reason).await?;
        self.client.show(&answer, |()| format!("disabled {0}; `dormouse enable {0}` enables it", self.name))
    }
}
