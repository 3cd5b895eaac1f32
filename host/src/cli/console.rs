//! `dormouse console`: opens the console of a host.

use super::client_args::ClientArgs;
use super::output;

/// Open the console of a host in a browser
///
/// The console is at the admin plane's address: functions, instances as they wake and fall asleep, logs, and the bill. If the
/// plane asks for a key, the console does too. On a machine without a browser, open the address that is printed elsewhere.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse console\n  dormouse console --print --host production")]
pub(super) struct Console {
    /// Print the address and open nothing
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Console {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let address = self.client.client()?.admin().clone();
        output::print(address.as_str())?;
        if !self.print
            && let Err(error) = open::that_detached(address.as_str())
        {
            eprintln!("no browser was opened ({error}); open the address in one");
        }
        Ok(())
    }
}
