//! `dormouse delete`: removes a function.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::bail;

use crate::ids::FunctionName;

use super::client_args::ClientArgs;

/// Delete a function, its code and its configuration
///
/// Its instances finish their requests and run their pre-stop hooks. What it used stays on the bill. On a terminal the
/// command asks first; elsewhere it needs `--yes`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dormouse delete hello --yes")]
pub(super) struct Delete {
    /// The function
    name: FunctionName,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Delete {
    pub(super) fn name(&self) -> &FunctionName {
        &self.name
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        if !self.yes && !confirmed(&self.name)? {
            bail!("not confirmed; nothing was deleted");
        }
        let answer = self.client.client()?.delete(&self.name).await?;
        self.client.show(&answer, |()| format!("deleted {}", self.name))
    }
}

/// Asks on the terminal; without one there is nobody to ask.
fn confirmed(name: &FunctionName) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        bail!("not a terminal; confirm with `--yes`");
    }
    eprint!("Delete `{name}`, its code and its configuration? [y/N] ");
    io::stderr().flush()?;
    let mut reply = String::new();
    io::stdin().lock().read_line(&mut reply)?;
    Ok(matches!(reply.trim(), "y" | "Y" | "yes"))
}
