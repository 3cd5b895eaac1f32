//! The command line: one file a command.
//!
//! `main.rs` calls [`main`], and nothing else does. `serve` and `up` run a host in this process; every other command
//! is a client that talks to a host through `client.rs`, over the same API that any program may use. Results go to
//! stdout, progress and errors to stderr.
//!
//! Beside the commands: `manifest.rs` reads `dormouse.toml`, `spelling.rs` knows how settings are spelled, `language.rs` what
//! languages need, `hosting.rs` starts a host for `serve` and `up`, `output.rs`, `progress.rs` and `units.rs` are what
//! people see. `client_args.rs` says which host a command talks to, `profiles.rs` remembers hosts, `trust.rs` knows whom a
//! client trusts, `client_invocations.rs` is the client's part for `invocations` and `triggers`, `client_error.rs` why it has no answer, and `log_stream.rs` follows a log.

mod address;
mod alias;
mod answer;
mod audit;
mod build;
mod client;
mod client_args;
mod client_error;
mod client_fc;
mod client_invocations;
mod compile;
pub mod component;
mod configure;
mod console;
mod delete;
mod deploy;
mod disable;
mod doctor;
mod echo;
mod enable;
mod fc_price;
mod hosting;
mod instances;
mod invocations;
mod invoke;
mod keys;
mod language;
mod list;
mod log_stream;
mod login;
mod logs;
mod manifest;
mod new;
mod output;
mod profiles;
mod progress;
mod publish;
mod resume;
mod rollback;
mod serve;
mod serverless;
mod shell;
mod show;
mod source;
mod spelling;
mod stop;
mod suspend;
mod top;
mod triggers;
mod trust;
mod units;
mod up;
mod usage;
mod versions;
mod watch;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use client_args::ClientArgs;
use client_error::ClientError;

/// Dormouse hosts functions: WebAssembly components that start, freeze, park and stop in order
///
/// A function is a component with a handler. Dormouse starts or thaws an instance when a request arrives, runs its pre-freeze
/// hook when the last one has finished, parks it so that nothing of it runs, and charges only for the time it executed.
#[derive(Parser)]
#[command(
    name = "dormouse",
    version,
    max_term_width = 100,
    after_help = "Start here:\n  \
        dormouse doctor       # Is this machine ready?\n  \
        dormouse new hello    # Write a function\n  \
        cd hello\n  \
        dormouse up --watch   # Build it, serve it, and follow its sources"
)]
struct Arguments {
    /// Talk to the host that `dormouse login` knows by this name
    #[arg(long, env = "DORMOUSE_HOST", value_name = "NAME", global = true, help_heading = "Host")]
    host: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Up(up::Up),
    New(new::New),
    Build(build::Build),
    Deploy(deploy::Deploy),
    Configure(configure::Configure),
    Invoke(invoke::Invoke),
    Invocations(invocations::Invocations),
    Triggers(triggers::Triggers),
    List(list::List),
    Show(show::Show),
    Logs(logs::Logs),
    Usage(usage::UsageCommand),
    Publish(publish::Publish),
    Versions(versions::Versions),
    Alias(alias::Alias),
    Rollback(rollback::Rollback),
    Disable(disable::Disable),
    Enable(enable::Enable),
    Suspend(suspend::Suspend),
    Resume(resume::Resume),
    Stop(stop::Stop),
    Delete(delete::Delete),
    Login(login::Login),
    Keys(keys::Keys),
    Audit(audit::Audit),
    Console(console::Console),
    Top(top::Top),
    Instances(instances::Instances),
    Doctor(doctor::Doctor),
    Compile(compile::Compile),
}

/// Runs the command line of this process, and prints an error as one sentence.
pub fn main() -> ExitCode {
    let Arguments { host, mut command } = Arguments::parse();
    let json = match command.client() {
        Some(client) => {
            client.host = host;
            client.json
        }
        // A host in this process is the one that it talks to.
        None => false,
    };
    let failure = command.failure();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(command.run()));
    match result.context(failure) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough, as `head` does; that is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, json);
            ExitCode::FAILURE
        }
    }
}

/// Prints the chain of causes on stderr. A program that asked for JSON gets the host's own problem document as well.
fn report(error: &anyhow::Error, json: bool) {
    if json && let Some(ClientError::Refused(problem)) = error.downcast_ref() {
        // The sentence below still says it if stdout is gone.
        let _ = serde_json::to_string(problem).map_err(io::Error::other).and_then(|text| output::print(&text));
    }
    output::note(&format!("{} {error:#}", output::red("error:")));
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl Command {
    async fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Serve(command) => command.run().await,
            // The two largest futures by far; the others need not be as large.
            Command::Up(command) => Box::pin(command.run()).await,
            Command::New(command) => command.run(),
            Command::Build(command) => command.run().await,
            Command::Deploy(command) => Box::pin(command.run()).await,
            Command::Configure(command) => command.run().await,
            Command::Invoke(command) => command.run().await,
            Command::Invocations(command) => command.run().await,
            Command::Triggers(command) => command.run().await,
            Command::List(command) => command.run().await,
            Command::Show(command) => command.run().await,
            Command::Logs(command) => command.run().await,
            Command::Usage(command) => command.run().await,
            Command::Publish(command) => command.run().await,
            Command::Versions(command) => command.run().await,
            Command::Alias(command) => command.run().await,
            Command::Rollback(command) => command.run().await,
            Command::Disable(command) => command.run().await,
            Command::Enable(command) => command.run().await,
            Command::Suspend(command) => command.run().await,
            Command::Resume(command) => command.run().await,
            Command::Stop(command) => command.run().await,
            Command::Delete(command) => command.run().await,
            Command::Login(command) => command.run().await,
            Command::Keys(command) => command.run().await,
            Command::Audit(command) => command.run().await,
            Command::Console(command) => command.run().await,
            Command::Top(command) => command.run().await,
            Command::Instances(command) => command.run().await,
            Command::Doctor(command) => command.run().await,
            Command::Compile(command) => command.run(),
        }
    }

    /// What it means if the command fails: the start of the sentence.
    fn failure(&self) -> String {
        match self {
            Command::Serve(_) => "failed to serve".to_owned(),
            Command::Up(_) => "failed to bring the project up".to_owned(),
            Command::New(command) => format!("failed to create `{}`", command.name()),
            Command::Build(_) => "failed to build".to_owned(),
            Command::Deploy(_) => "failed to deploy".to_owned(),
            Command::Configure(command) => format!("failed to configure `{}`", command.name()),
            Command::Invocations(command) => command.failure(),
            Command::Triggers(command) => command.failure(),
            Command::Invoke(command) => format!("failed to invoke `{}`", command.name()),
            Command::List(_) => "failed to list functions".to_owned(),
            Command::Show(command) => format!("failed to show `{}`", command.name()),
            Command::Logs(command) => format!("failed to read the log of `{}`", command.name()),
            Command::Usage(_) => "failed to read the usage".to_owned(),
            Command::Publish(command) => format!("failed to publish `{}`", command.name()),
            Command::Versions(command) => format!("failed to look at the versions of `{}`", command.name()),
            Command::Alias(command) => format!("failed to look at or change the aliases of `{}`", command.name()),
            Command::Rollback(command) => format!("failed to roll `{}` back", command.name()),
            Command::Disable(command) => format!("failed to disable `{}`", command.name()),
            Command::Enable(command) => format!("failed to enable `{}`", command.name()),
            Command::Suspend(command) => format!("failed to suspend `{}`", command.name()),
            Command::Resume(command) => format!("failed to resume `{}`", command.name()),
            Command::Stop(command) => format!("failed to stop `{}`", command.instance()),
            Command::Delete(command) => format!("failed to delete `{}`", command.name()),
            Command::Login(command) => format!("failed to log in to `{}`", command.name()),
            Command::Keys(command) => command.failure(),
            Command::Audit(_) => "failed to read the audit log".to_owned(),
            Command::Console(_) => "failed to open the console".to_owned(),
            Command::Top(_) => "failed to show what the host does".to_owned(),
            Command::Instances(_) => "failed to list instances".to_owned(),
            Command::Doctor(_) => "this machine is not ready".to_owned(),
            Command::Compile(_) => "failed to compile".to_owned(),
        }
    }

    /// Which host it talks to, if it is a client of one. A program that asks for JSON gets a refusal as JSON too.
    fn client(&mut self) -> Option<&mut ClientArgs> {
        Some(match self {
            Command::Serve(_) | Command::Up(_) | Command::New(_) | Command::Build(_) | Command::Compile(_) => {
                return None;
            }
            Command::Deploy(command) => &mut command.client,
            Command::Configure(command) => &mut command.client,
            Command::Invoke(command) => &mut command.client,
            Command::Invocations(command) => command.client(),
            Command::Triggers(command) => command.client(),
            Command::List(command) => &mut command.client,
            Command::Show(command) => &mut command.client,
            Command::Logs(command) => &mut command.client,
            Command::Usage(command) => &mut command.client,
            Command::Publish(command) => &mut command.client,
            Command::Versions(command) => &mut command.client,
            Command::Alias(command) => command.client(),
            Command::Rollback(command) => &mut command.client,
            Command::Disable(command) => &mut command.client,
            Command::Enable(command) => &mut command.client,
            Command::Suspend(command) => &mut command.client,
            Command::Resume(command) => &mut command.client,
            Command::Stop(command) => &mut command.client,
            Command::Delete(command) => &mut command.client,
            Command::Login(command) => &mut command.client,
            Command::Keys(command) => command.client(),
            Command::Audit(command) => &mut command.client,
            Command::Console(command) => &mut command.client,
            Command::Top(command) => &mut command.client,
            Command::Instances(command) => &mut command.client,
            Command::Doctor(command) => &mut command.client,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_clap_tree_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_with_an_example() {
        for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.contains("\n\n"), "{name} has no second paragraph");
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(example.starts_with("Example") && example.contains(&format!("dormouse {name}")), "{name}");
        }
    }
}
