//! `dormouse serve`: runs a host until it is asked to stop.

use std::path::Path;

use crate::config::ServeArgs;

use super::{hosting, output};

/// Run a host
///
/// Serves callers on the data plane and operators on the admin plane until Ctrl-C or SIGTERM. Then it takes no new
/// request, finishes those it has, runs the pre-stop hook of every instance, and says how many ran. Functions, code
/// and the bill stay in the state directory.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse serve\n  \
    dormouse serve --state-dir /var/lib/dormouse --data-addr 0.0.0.0:8080\n  \
    dormouse serve --data-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0 --json")]
pub(super) struct Serve {
    /// Print the addresses as JSON on the first line, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut started = hosting::start(self.serve, Path::new("")).await?;
        let addresses = started.addresses;
        if self.json {
            hosting::announce_as_json(&addresses)?;
        } else {
            let has_tls = started.server.has_tls();
            let (data, admin) = (hosting::url(addresses.data, has_tls), hosting::url(addresses.admin, has_tls));
            let lines = [
                format!("data plane   {data}   (POST {data}/invoke/NAME)"),
                format!("admin plane  {admin}"),
                "Ctrl-C stops: every instance's pre-stop runs".to_owned(),
            ];
            output::print(&lines.join("\n"))?;
        }
        started.server.told_to_stop().await;
        let stopped = started.server.stop().await?;
        Ok(hosting::farewell(&stopped, self.json)?)
    }
}
