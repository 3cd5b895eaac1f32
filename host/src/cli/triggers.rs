//! `dormouse triggers`: what invokes a function by itself, or under an address of its own.

use clap::Subcommand;

use crate::admin::model::{TriggerList, TriggerView};
use crate::ids::FunctionName;

use super::client_args::ClientArgs;
use super::output;

/// List and fire triggers
///
/// Triggers belong to a function's configuration: `dormouse.toml` has them under `[functions.NAME.triggers.TRIGGER]`, and
/// `dormouse configure` changes them one by one.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse triggers list report\n  \
    dormouse triggers fire report nightly\n  \
    dormouse configure report --set 'triggers.nightly.timer.cron=0 3 * * *' --set triggers.nightly.timer.timezone=Europe/Berlin\n  \
    dormouse configure report --set triggers.nightly.enabled=false\n  \
    dormouse configure report --set triggers.nightly=null")]
pub(super) struct Triggers {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List a function's triggers, with the next times and the last runs of timers
    List(List),
    /// Fire a timer now, beside its own times, and print the invocation's identifier
    Fire(Fire),
}

#[derive(clap::Args)]
struct List {
    /// The function
    function: FunctionName,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(clap::Args)]
struct Fire {
    /// The function
    function: FunctionName,
    /// The trigger
    trigger: String,
    #[command(flatten)]
    client: ClientArgs,
}

impl Triggers {
    pub(super) fn failure(&self) -> String {
        match &self.command {
            Command::List(list) => format!("failed to list the triggers of `{}`", list.function),
            Command::Fire(fire) => format!("failed to fire `{}`", fire.trigger),
        }
    }

    pub(super) fn client(&mut self) -> &mut ClientArgs {
        match &mut self.command {
            Command::List(list) => &mut list.client,
            Command::Fire(fire) => &mut fire.client,
        }
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::List(list) => {
                let answer = list.client.client()?.triggers(&list.function).await?;
                list.client.show(&answer, table)
            }
            Command::Fire(fire) => {
                let answer = fire.client.client()?.fire(&fire.function, &fire.trigger).await?;
                fire.client.show(&answer, |fired| fired.id.clone())
            }
        }
    }
}

fn table(list: &TriggerList) -> String {
    if list.triggers.is_empty() {
        return "no triggers; `dormouse triggers --help` shows how to make one".to_owned();
    }
    let mut table = output::table(["trigger", "enabled", "version", "when or where", "next", "last runs"]);
    for trigger in &list.triggers {
        let runs =
            trigger.runs.iter().take(3).map(|run| format!("{} {}", run.id, run.state.as_deref().unwrap_or("gone")));
        table.add_row([
            output::text(&trigger.name),
            output::text(if trigger.trigger.is_enabled() { "yes" } else { "no" }),
            output::text(trigger.trigger.qualifier.as_deref().unwrap_or("LATEST")),
            output::text(&what(trigger)),
            output::text(trigger.next.first().map_or("", String::as_str)),
            output::text(&runs.collect::<Vec<_>>().join(", ")),
        ]);
    }
    output::rendered(&table)
}

/// What a trigger is, in one cell.
fn what(trigger: &TriggerView) -> String {
    let Some(timer) = &trigger.trigger.timer else { return trigger.address.clone().unwrap_or_default() };
    match (&timer.cron, timer.every_ms) {
        (Some(cron), _) => format!("{cron} {}", timer.timezone.as_deref().unwrap_or_default()).trim().to_owned(),
        (None, Some(ms)) => format!("every {ms} ms"),
        (None, None) => String::new(),
    }
}
