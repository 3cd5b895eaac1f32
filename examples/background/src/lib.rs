//! Work beside the requests: a task that ticks while the instance is awake and stands still while it is parked.
//!
//! `curl -d '' http://127.0.0.1:8080/invoke/background` twice, far apart: the count hardly moved, since nothing of a
//! parked instance runs. A function that must tick for longer sets a longer `freeze-after-ms`.

use std::{cell::Cell, rc::Rc, time::Duration};

use dormouse_sdk::{Context, Function, Result, sleep, spawn};

struct Background {
    ticks: Rc<Cell<u64>>,
}

impl Function for Background {
    type Event = ();
    type Reply = String;

    async fn initialize(_: &Context) -> Result<Self> {
        let ticks = Rc::new(Cell::new(0));
        spawn(tick(ticks.clone()));
        Ok(Background { ticks })
    }

    async fn handle(&self, _: &Context, (): ()) -> Result<String> {
        Ok(self.ticks.get().to_string())
    }
}

async fn tick(ticks: Rc<Cell<u64>>) {
    loop {
        sleep(Duration::from_millis(10)).await;
        ticks.set(ticks.get() + 1);
    }
}

dormouse_sdk::export!(Background);

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_sdk::testing::{Instance, block_on};

    #[test]
    fn ticks_go_on_between_requests() {
        let background = Instance::<Background>::default();
        block_on(async {
            assert_eq!(background.invoke("").await.unwrap(), "0");
            sleep(Duration::from_millis(50)).await;
            assert_ne!(background.invoke("").await.unwrap(), "0");
        });
    }
}
