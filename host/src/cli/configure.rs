//! `dormouse configure`: changes settings of a deployed function.

use serde_json::{Map, Value};

use crate::ids::FunctionName;

use super::client_args::ClientArgs;
use super::spelling::{self, Assignment};

/// Change settings of a function without deploying it again
///
/// Settings that are not named stay; `null` goes back to the default. Who may call the function (`auth`), how it is
/// called asynchronously (`async`), its triggers, its description and its tags change at once; other settings make a new revision,
/// whose instances replace those that are there.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse configure hello --set auth=key\n  \
    dormouse configure hello --set async.max-attempts=5 --set async.on-failure.function=alarm\n  \
    dormouse configure hello --set 'triggers.nightly.timer.cron=0 3 * * *'\n  \
    dormouse configure hello --set memory-mb=256 --set environment.LEVEL=debug\n  \
    dormouse configure hello --set auth=null")]
pub(super) struct Configure {
    /// The function
    name: FunctionName,
    /// A setting, as in `memory-mb=256` or `lifecycle.pre-stop.handler=bye`; may be repeated
    #[arg(long = "set", required = true, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Configure {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut patch = Map::new();
        spelling::assign(&mut patch, &self.set);
        let answer = self.client.client()?.configure(&self.name, &Value::Object(patch)).await?;
        self.client.show(&answer, |function| format!("configured {}, revision {}", self.name, function.revision))
    }
}
