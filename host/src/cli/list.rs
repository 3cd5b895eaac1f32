//! `dormouse list`: the functions of a host.

use std::time::SystemTime;

use crate::admin::model::{FunctionList, FunctionView, InstanceCounts};
use crate::clock;

use super::client_args::ClientArgs;
use super::{output, units};

/// List the functions of a host with their instances
///
/// A parked instance keeps its memory and uses no CPU; a suspended one was stopped in the middle of its requests by
/// `dormouse suspend`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse list\n  dormouse list --json | jq -r '.functions[].name'")]
pub(super) struct List {
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl List {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = self.client.client()?.functions().await?;
        self.client.show(&answer, |list| functions(list, clock::date()))
    }
}

fn functions(list: &FunctionList, now: SystemTime) -> String {
    if list.functions.is_empty() {
        return "no functions that you may read; `dormouse deploy` or `dormouse up` adds one".to_owned();
    }
    let mut table = output::table(["function", "instances", "memory", "revision", "updated", "description"]);
    for function in &list.functions {
        table.add_row([
            output::text(&function.name),
            output::text(&instances(&function.instances, mark(function))),
            output::figure(format!("{} MB", function.settings.memory_mb)),
            output::figure(function.revision),
            output::text(&units::ago(now, &function.updated_at)),
            output::text(&function.settings.description),
        ]);
    }
    output::rendered(&table)
}

/// What an operator did to a function, or what is wrong with it, in one word.
pub(super) fn mark(function: &FunctionView) -> Option<&'static str> {
    match (&function.fault, &function.disabled, function.suspended) {
        (Some(_), _, _) => Some("CANNOT START"),
        (None, Some(_), _) => Some("DISABLED"),
        (None, None, true) => Some("SUSPENDED"),
        (None, None, false) => None,
    }
}

/// How many instances are in which state: `1 active, 3 parked`.
pub(super) fn instances(counts: &InstanceCounts, mark: Option<&str>) -> String {
    let states = [
        (counts.starting, "starting"),
        (counts.active, "active"),
        (counts.freezing, "freezing"),
        (counts.parked, "parked"),
        (counts.suspended, "suspended"),
        (counts.stopping, "stopping"),
    ];
    let some = states.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}"));
    let mut words: Vec<String> = some.collect();
    words.splice(0..0, mark.map(str::to_owned));
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_states_that_occur_are_named() {
        let counts = InstanceCounts { active: 1, parked: 3, ..InstanceCounts::default() };
        assert_eq!(instances(&counts, None), "1 active, 3 parked");
        assert_eq!(instances(&InstanceCounts::default(), None), "none");
        assert_eq!(
            instances(&InstanceCounts { suspended: 2, ..counts }, Some("SUSPENDED")),
            "SUSPENDED, 1 active, 3 parked, 2 suspended"
        );
    }
}
