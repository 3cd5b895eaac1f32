//! `dormouse invocations`: asynchronous invocations of a function.

use clap::Subcommand;

use crate::admin::model::{AsyncInvocationList, AsyncInvocationView, ReplayRequest, WholeAsyncInvocation};
use crate::ids::{FunctionName, RequestId};
use crate::queue::{Encoding, Payload, State};

use super::client_args::ClientArgs;
use super::output;
use super::units::Moment;

/// List, show, stop and replay asynchronous invocations
///
/// `dormouse invoke --async` makes one. It is `queued`, then `running`, and ends as `succeeded`, `failed`, `expired` or
/// `stopped`; after an attempt that failed it is `waiting-to-retry`. Those that could not begin stay `queued`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse invocations list hello --state failed --from 1h\n  \
    dormouse invocations show hello order-4711\n  \
    dormouse invocations stop hello order-4711\n  \
    dormouse invocations replay hello order-4711\n  \
    dormouse invocations replay hello --all failed --from 1h")]
pub(super) struct Invocations {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List a function's asynchronous invocations, the newest last
    List(List),
    /// Show one, with its event and its reply
    Show(One),
    /// Stop one: at once if it waits, as at a timeout if it runs
    Stop(One),
    /// Run the event of one that has ended, or of all of a state, once more
    Replay(Replay),
    /// Show the secret with which requests to the function's URL destinations are signed
    Secret(Secret),
}

#[derive(clap::Args)]
struct List {
    /// The function
    function: FunctionName,
    /// Only those in this state
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only those accepted from this time on: RFC 3339, a day, or how long ago (`1h`, `7d`)
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Only those accepted before this time, written the same way
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// How many to list at most: 1 to 1000
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: u32,
    /// Only older ones than this, to go back further
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(clap::Args)]
struct One {
    /// The function
    function: FunctionName,
    /// The invocation's identifier
    #[arg(value_name = "ID")]
    id: RequestId,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(clap::Args)]
struct Replay {
    /// The function
    function: FunctionName,
    /// The invocation's identifier
    #[arg(value_name = "ID", required_unless_present = "all")]
    id: Option<RequestId>,
    /// All that ended in this state; at most the 10,000 newest
    #[arg(long, value_enum, value_name = "STATE", conflicts_with = "id")]
    all: Option<State>,
    /// Of those, only the ones accepted from this time on: RFC 3339, a day, or how long ago (`1h`, `7d`)
    #[arg(long, value_name = "TIME", requires = "all")]
    from: Option<Moment>,
    /// Only those accepted before this time, written the same way
    #[arg(long, value_name = "TIME", requires = "all")]
    to: Option<Moment>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(clap::Args)]
struct Secret {
    /// The function
    function: FunctionName,
    #[command(flatten)]
    client: ClientArgs,
}

impl Invocations {
    pub(super) fn failure(&self) -> String {
        match &self.command {
            Command::List(list) => format!("failed to list the invocations of `{}`", list.function),
            Command::Show(one) => format!("failed to show invocation `{}`", one.id),
            Command::Stop(one) => format!("failed to stop invocation `{}`", one.id),
            Command::Replay(replay) => format!("failed to replay invocations of `{}`", replay.function),
            Command::Secret(secret) => format!("failed to show the secret of `{}`", secret.function),
        }
    }

    pub(super) fn client(&mut self) -> &mut ClientArgs {
        match &mut self.command {
            Command::List(list) => &mut list.client,
            Command::Show(one) | Command::Stop(one) => &mut one.client,
            Command::Replay(replay) => &mut replay.client,
            Command::Secret(secret) => &mut secret.client,
        }
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::List(list) => list.run().await,
            Command::Show(one) => {
                let answer = one.client.client()?.invocation_of(&one.function, &one.id).await?;
                one.client.show(&answer, whole)
            }
            Command::Stop(one) => {
                let answer = one.client.client()?.stop_invocation(&one.function, &one.id).await?;
                one.client.show(&answer, |stopped| match stopped.state {
                    State::Running => format!("stopping {}, which runs", one.id),
                    _ => format!("stopped {}", one.id),
                })
            }
            Command::Replay(replay) => replay.run().await,
            Command::Secret(secret) => {
                let answer = secret.client.client()?.webhook_secret(&secret.function).await?;
                secret.client.show(&answer, |view| view.secret.clone())
            }
        }
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.state.map(|state| ("state", state.as_str().to_owned())));
        query.extend(self.from.map(|from| ("from", from.rfc3339())));
        query.extend(self.to.map(|to| ("to", to.rfc3339())));
        query.extend(self.before.map(|before| ("before", before.to_string())));
        let answer = self.client.client()?.invocations(&self.function, &query).await?;
        self.client.show(&answer, table)?;
        output::note_older(answer.value.next);
        Ok(())
    }
}

impl Replay {
    async fn run(self) -> anyhow::Result<()> {
        let client = self.client.client()?;
        if let Some(id) = &self.id {
            let answer = client.replay(&self.function, id).await?;
            return self.client.show(&answer, |replay| format!("{id} runs once more, as {}", replay.id));
        }
        let (from, to) = (self.from.map(Moment::rfc3339), self.to.map(Moment::rfc3339));
        let answer = client.replay_all(&self.function, &ReplayRequest { state: self.all, from, to }).await?;
        self.client.show(&answer, |done| match done.not_kept {
            0 => format!("{} run once more", done.replayed),
            left => format!("{} run once more; the events of {left} are not kept", done.replayed),
        })
    }
}

fn table(list: &AsyncInvocationList) -> String {
    if list.invocations.is_empty() {
        return "none; `dormouse invoke --async` makes one".to_owned();
    }
    let mut table = output::table(["invocation", "version", "state", "attempts", "accepted", "ended", "detail"]);
    for invocation in list.invocations.iter().rev() {
        table.add_row([
            output::text(&invocation.id),
            output::text(&invocation.qualifier),
            output::text(invocation.state.as_str()),
            output::figure(invocation.attempts),
            output::text(&invocation.accepted_at),
            output::text(invocation.ended_at.as_deref().unwrap_or("")),
            output::text(&short(invocation)),
        ]);
    }
    output::rendered(&table)
}

/// What is worth saying in one cell.
fn short(invocation: &AsyncInvocationView) -> String {
    let code = invocation.code.as_deref().filter(|code| *code != "ok").unwrap_or_default();
    let url = invocation.url.as_deref().map(|url| format!("to {url}"));
    let parts = [url.as_deref().unwrap_or_default(), code, &invocation.detail];
    let text: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    text.join(": ").chars().take(120).collect()
}

fn whole(whole: &WholeAsyncInvocation) -> String {
    let WholeAsyncInvocation { invocation, event, reply } = whole;
    let mut table = output::table([]);
    let mut row = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            table.add_row([output::text(name), output::text(value)]);
        }
    };
    let attempts = invocation.attempts.to_string();
    let status = invocation.status.map(|status| status.to_string());
    let told = invocation.destination.as_ref().map(|told| match (&told.invocation, &told.refused) {
        (Some(id), _) => format!("{}, as {id}", told.destination),
        (None, why) => format!("{} was not told: {}", told.destination, why.as_deref().unwrap_or("?")),
    });
    row("invocation", Some(&invocation.id));
    row("function", Some(&invocation.function));
    row("version", Some(&invocation.qualifier));
    row("sent to", invocation.url.as_deref());
    row("request", invocation.request.as_deref());
    row("state", Some(invocation.state.as_str()));
    row("attempts", Some(&attempts));
    row("accepted", Some(&invocation.accepted_at));
    row("due", invocation.due_at.as_deref());
    row("began", invocation.began_at.as_deref());
    row("ended", invocation.ended_at.as_deref());
    row("code", invocation.code.as_deref());
    row("detail", Some(&invocation.detail));
    row("status", status.as_deref());
    row("told", told.as_deref());
    row("led here", Some(&invocation.chain.join(" -> ")));
    row("replays", invocation.replay_of.as_deref());
    row("key", invocation.key.as_deref());
    row("event", Some(&event.as_ref().map_or("not kept".to_owned(), shown)));
    row("reply", reply.as_ref().map(shown).as_deref());
    output::rendered(&table)
}

/// Text as it is, bytes in base64.
fn shown(payload: &Payload) -> String {
    match payload.encoding {
        Encoding::Utf8 => payload.data.clone(),
        Encoding::Base64 => format!("base64: {}", payload.data),
    }
}
