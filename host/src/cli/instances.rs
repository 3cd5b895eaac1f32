//! `dormouse instances`: the instances of a function, or of all.

use std::time::SystemTime;

use crate::admin::model::{InstanceList, InstanceView};
use crate::clock;
use crate::ids::FunctionName;

use super::answer::Answer;
use super::client_args::ClientArgs;
use super::{output, units};

/// List instances with their states and what each has used
///
/// `active`: running requests, or lingering after one; `freezing`: in pre-freeze; `parked`: asleep, and free of charge; `suspended`:
/// halted by an operator; `stopping`: finishing its requests or in pre-stop.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse instances\n  dormouse instances hello --json")]
pub(super) struct Instances {
    /// Only those of this function
    name: Option<FunctionName>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Instances {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = self.client.client()?;
        let names: Vec<FunctionName> = match self.name {
            Some(name) => vec![name],
            None => {
                let functions = client.functions().await?.value.functions;
                let awake = functions.iter().filter(|function| function.instances.total() > 0);
                awake.map(|function| function.name.parse()).collect::<Result<_, _>>()?
            }
        };
        let mut instances = Vec::new();
        for name in &names {
            instances.extend(client.instances(name).await?.value.instances);
        }
        let list = InstanceList { instances };
        let json = serde_json::to_string(&list)?;
        self.client.show(&Answer { value: list, json }, |list| table(&list.instances, clock::date(), true))
    }
}

const COLUMNS: [&str; 8] = ["instance", "state", "since", "in flight", "requests", "windows", "memory", "executed"];

/// The instances; each with its function if there are several.
pub(super) fn table(instances: &[InstanceView], now: SystemTime, names_function: bool) -> String {
    if instances.is_empty() {
        return " none; the next request starts one".to_owned();
    }
    let [instance, state, since, in_flight, requests, windows, memory, executed] = COLUMNS;
    let mut table = if names_function {
        output::table(["function", instance, state, since, in_flight, requests, windows, memory, executed])
    } else {
        output::table(COLUMNS)
    };
    for instance in instances {
        let cells = [
            output::text(&instance.id),
            output::text(&instance.state),
            output::text(&units::ago(now, &instance.since)),
            output::figure(instance.in_flight),
            output::figure(units::count(instance.requests)),
            output::figure(units::count(instance.windows.into())),
            output::figure(units::bytes(instance.memory_bytes)),
            output::figure(units::duration_ms(instance.executed_ms)),
        ];
        let function = names_function.then(|| output::text(&instance.function));
        table.add_row(function.into_iter().chain(cells));
    }
    output::rendered(&table)
}
