//! Orders that come asynchronously, at least once each, and are booked once: the function is idempotent.
//!
//! The identifier of an event is the same at each attempt, and after the host was killed in the middle of one. So what was
//! booked is remembered under it. This example remembers in memory, which is enough to be seen; a real one leaves it to its
//! database, in the same transaction as the booking: `INSERT INTO orders (id, ...) ... ON CONFLICT (id) DO NOTHING`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use dormouse_sdk::{Context, Function, Result};

struct Orders {
    /// By the identifiers of the events.
    booked: RefCell<BTreeMap<String, String>>,
}

impl Function for Orders {
    type Event = String;
    type Reply = String;

    async fn initialize(_: &Context) -> Result<Self> {
        Ok(Orders { booked: RefCell::default() })
    }

    async fn handle(&self, ctx: &Context, order: String) -> Result<String> {
        let id = &ctx.request_id;
        println!("{id}: attempt {}", ctx.attempt);
        if self.booked.borrow().contains_key(id) {
            return Ok(format!("{id} is booked already\n"));
        }
        // What the timer orders fails once, so that a retry can be seen.
        if ctx.attempt == 1 && order.contains("triggerName") {
            return Err("the bank is not there; the next attempt will find it".into());
        }
        self.booked.borrow_mut().insert(id.clone(), order);
        Ok(format!("{id} is booked, {} in all\n", self.booked.borrow().len()))
    }
}

dormouse_sdk::export!(Orders);

#[cfg(test)]
mod tests {
    use dormouse_sdk::testing::{Instance, block_on};

    #[test]
    fn the_timers_first_attempt_fails() {
        let orders = Instance::<super::Orders>::default();
        block_on(async {
            let error = orders.invoke(r#"{"triggerName": "regular"}"#).await.unwrap_err();
            assert!(error.to_string().contains("the next attempt"), "{error}");
            assert!(orders.invoke("tea").await.unwrap().contains("is booked, 1 in all"));
        });
    }
}
