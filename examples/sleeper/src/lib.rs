//! Nothing but waiting: replies after as many milliseconds as the event says, and is charged next to nothing for them.
//!
//! `curl -d 500 http://127.0.0.1:8080/invoke/sleeper`, several at once too: one instance waits for all of them.

use std::time::Duration;

use dormouse_sdk::{Context, Function, Result, sleep};

struct Sleeper;

impl Function for Sleeper {
    type Event = String;
    type Reply = String;

    async fn initialize(_: &Context) -> Result<Self> {
        Ok(Sleeper)
    }

    async fn handle(&self, _: &Context, event: String) -> Result<String> {
        let ms = event.trim().parse().map_err(|_| format!("expected milliseconds, not {event:?}"))?;
        sleep(Duration::from_millis(ms)).await;
        Ok(format!("slept for {ms} ms\n"))
    }
}

dormouse_sdk::export!(Sleeper);

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use dormouse_sdk::testing::{Instance, block_on};

    #[test]
    fn it_sleeps_as_long_as_it_is_told() {
        let start = SystemTime::now();
        let sleeper = Instance::<super::Sleeper>::default();
        assert_eq!(block_on(sleeper.invoke("20")).unwrap(), "slept for 20 ms\n");
        assert!(start.elapsed().unwrap() >= Duration::from_millis(20));
    }
}
