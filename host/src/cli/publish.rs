//! `dormouse publish`: gives what is deployed a number that stays.

use crate::ids::FunctionName;

use super::client_args::ClientArgs;

/// Publish what is deployed as the next version
///
/// A version is the code and the settings of this moment, under a number: 1, 2, 3. It never changes, whatever is deployed
/// later, and nothing is compiled or copied for it. Callers reach it with `?qualifier=1`, or through an alias that names it.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse publish hello --description 'faster greetings'\n  \
    dormouse publish hello && dormouse alias set hello prod 1")]
pub(super) struct Publish {
    /// The function
    name: FunctionName,
    /// What is new in it, for people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Publish {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = self.client.client()?.publish(&self.name, self.description).await?;
        self.client.show(&answer, |version| format!("published version {} of {}", version.version, version.function))
    }
}
