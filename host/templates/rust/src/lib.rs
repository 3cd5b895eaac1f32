//! Greets people, and remembers how many it has greeted for as long as its instance lives.

use std::cell::Cell;

use dormouse_sdk::{Context, Function, Result};

/// One instance. Its fields outlive the requests: parked or awake, the memory stays.
struct Greeter {
    greeted: Cell<u64>,
}

impl Function for Greeter {
    type Event = String;
    type Reply = String;

    /// Runs once, before the first request.
    async fn initialize(_: &Context) -> Result<Self> {
        Ok(Greeter {
            greeted: Cell::new(0),
        })
    }

    /// Runs for each request.
    async fn handle(&self, _: &Context, event: String) -> Result<String> {
        let name = event.trim();
        if name.is_empty() {
            return Err("whom shall I greet? Send a name.".into());
        }
        self.greeted.set(self.greeted.get() + 1);
        Ok(format!(
            "Hello, {name}! You are number {}.\n",
            self.greeted.get()
        ))
    }

    /// Runs each time before the instance is parked. No caller waits for it: flush metrics, traces and buffers here.
    async fn pre_freeze(&self, _: &Context) {
        println!("greeted {} so far, going to sleep", self.greeted.get());
    }
}

dormouse_sdk::export!(Greeter);

#[cfg(test)]
mod tests {
    use dormouse_sdk::testing::{Instance, block_on};

    use super::Greeter;

    #[test]
    fn the_count_goes_on_after_a_freeze() {
        let greeter = Instance::<Greeter>::default();
        block_on(async {
            assert_eq!(
                greeter.invoke("Ada").await.unwrap(),
                "Hello, Ada! You are number 1.\n"
            );
            greeter.pre_freeze().await;
            assert_eq!(
                greeter.invoke("Grace").await.unwrap(),
                "Hello, Grace! You are number 2.\n"
            );
        });
    }

    #[test]
    fn nobody_cannot_be_greeted() {
        let greeter = Instance::<Greeter>::default();
        assert_eq!(
            block_on(greeter.invoke("")).unwrap_err(),
            "whom shall I greet? Send a name."
        );
    }
}
