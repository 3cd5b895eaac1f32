//! `dormouse audit`: what operators changed.

use crate::admin::model::AuditEntry;
use crate::ids::FunctionName;

use super::client_args::ClientArgs;
use super::output;

/// Show who changed what, when and from where
///
/// Lists the newest changes of functions, instances and keys, the newest last. An operator is named by its key, `admin-token`
/// for the admin token, `certificate:` and a fingerprint, or `local` for a program on the host's own machine where the admin
/// plane asks for no key.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse audit\n  dormouse audit --function hello --limit 10")]
pub(super) struct Audit {
    /// Only changes of this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// How many changes to list at most: 1 to 1000
    #[arg(long, value_name = "ENTRIES", default_value_t = 50)]
    limit: u32,
    /// Only changes before this one, to go back further
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Audit {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.function.map(|name| ("function", name.to_string())));
        query.extend(self.before.map(|before| ("before", before.to_string())));
        let answer = self.client.client()?.audit(&query).await?;
        self.client.show(&answer, |list| entries(&list.entries))?;
        output::note_older(answer.value.next);
        Ok(())
    }
}

fn entries(newest_first: &[AuditEntry]) -> String {
    if newest_first.is_empty() {
        return "no changes that you may read".to_owned();
    }
    let mut table = output::table(["number", "time", "operator", "from", "action", "function", "status", "detail"]);
    for entry in newest_first.iter().rev() {
        table.add_row([
            output::figure(entry.id),
            output::text(&entry.time),
            output::text(&entry.operator),
            output::text(&entry.address),
            output::text(&entry.action),
            output::text(entry.function.as_deref().unwrap_or("")),
            output::figure(entry.status.map_or("none".to_owned(), |status| status.to_string())),
            output::text(&entry.detail),
        ]);
    }
    output::rendered(&table)
}
