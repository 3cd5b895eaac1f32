//! Nothing but computing: counts the primes below a number, the slow way, without ever waiting.
//!
//! `curl -d 1000000 http://127.0.0.1:8080/invoke/cpu`. The bill shows what it burnt. A number too large for the
//! timeout is answered with 504, and suspending the function stops the count where it is until it is resumed.

use dormouse_sdk::{Context, Function, Result};

struct Cpu;

impl Function for Cpu {
    type Event = String;
    type Reply = String;

    async fn initialize(_: &Context) -> Result<Self> {
        Ok(Cpu)
    }

    async fn handle(&self, _: &Context, limit: String) -> Result<String> {
        let limit = limit.trim().parse().map_err(|_| format!("expected a number, not {limit:?}"))?;
        Ok(format!("{}\n", (2..limit).filter(is_prime).count()))
    }
}

fn is_prime(number: &u64) -> bool {
    (2..).take_while(|divisor| divisor * divisor <= *number).all(|divisor| !number.is_multiple_of(divisor))
}

dormouse_sdk::export!(Cpu);

#[cfg(test)]
mod tests {
    use dormouse_sdk::testing::{Instance, block_on};

    #[test]
    fn primes_are_counted() {
        let cpu = Instance::<super::Cpu>::default();
        assert_eq!(block_on(cpu.invoke("100")).unwrap(), "25\n");
        assert_eq!(block_on(cpu.invoke("ten")).unwrap_err(), r#"expected a number, not "ten""#);
    }
}
