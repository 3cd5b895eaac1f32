//! State that outlives its request: the count goes on across parking, with no database and nothing to restore.
//!
//! `curl -d '' http://127.0.0.1:8080/invoke/counter`, a few times, with pauses as long as you like.

use std::cell::Cell;

use dormouse_sdk::{Context, Function, Result};

struct Counter {
    requests: Cell<u64>,
    freezes: Cell<u64>,
}

impl Function for Counter {
    type Event = ();
    type Reply = String;

    async fn initialize(_: &Context) -> Result<Self> {
        Ok(Counter { requests: Cell::new(0), freezes: Cell::new(0) })
    }

    async fn handle(&self, ctx: &Context, (): ()) -> Result<String> {
        self.requests.set(self.requests.get() + 1);
        let (requests, freezes) = (self.requests.get(), self.freezes.get());
        Ok(format!("request {requests} of instance {}, frozen {freezes} times so far\n", ctx.instance_id))
    }

    async fn pre_freeze(&self, _: &Context) {
        self.freezes.set(self.freezes.get() + 1);
    }
}

dormouse_sdk::export!(Counter);

#[cfg(test)]
mod tests {
    use dormouse_sdk::testing::{Instance, block_on};

    #[test]
    fn the_count_goes_on_after_a_freeze() {
        let counter = Instance::<super::Counter>::default();
        block_on(async {
            counter.invoke("").await.unwrap();
            counter.pre_freeze().await;
            let reply = counter.invoke("").await.unwrap();
            assert_eq!(reply, "request 2 of instance test-instance, frozen 1 times so far\n");
        });
    }
}
