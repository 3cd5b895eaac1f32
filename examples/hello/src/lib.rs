//! The smallest function: text in, text out.
//!
//! `curl -d Ada http://127.0.0.1:8080/invoke/hello`

use dormouse_sdk::{Context, Function, Result};

struct Hello;

impl Function for Hello {
    type Event = String;
    type Reply = String;

    async fn initialize(_: &Context) -> Result<Self> {
        Ok(Hello)
    }

    async fn handle(&self, _: &Context, event: String) -> Result<String> {
        let name = match event.trim() {
            "" => "world",
            name => name,
        };
        Ok(format!("Hello, {name}!\n"))
    }
}

dormouse_sdk::export!(Hello);

#[cfg(test)]
mod tests {
    use dormouse_sdk::testing::{Instance, block_on};

    #[test]
    fn everyone_is_greeted() {
        let hello = Instance::<super::Hello>::default();
        assert_eq!(block_on(hello.invoke("Ada")).unwrap(), "Hello, Ada!\n");
        assert_eq!(block_on(hello.invoke("")).unwrap(), "Hello, world!\n");
    }
}
