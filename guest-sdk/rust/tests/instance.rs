//! What an instance promises about its state and its tasks, natively.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use dormouse_sdk::{
    Context, Function, Result, sleep, spawn,
    testing::{Instance, block_on},
};

thread_local! {
    static STARTS: Cell<u32> = const { Cell::new(0) };
    static LOG: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Takes some time to start, and with `FAILS_FIRST` fails the first time.
struct Slow<const FAILS_FIRST: bool>;

impl<const FAILS_FIRST: bool> Function for Slow<FAILS_FIRST> {
    type Event = ();
    type Reply = ();

    async fn initialize(_: &Context) -> Result<Self> {
        let start = STARTS.get() + 1;
        STARTS.set(start);
        sleep(Duration::from_millis(5)).await;
        if FAILS_FIRST && start == 1 {
            return Err("not yet".into());
        }
        Ok(Slow)
    }

    async fn handle(&self, _: &Context, (): ()) -> Result<()> {
        LOG.with_borrow_mut(|log| log.push("handle"));
        Ok(())
    }

    async fn pre_freeze(&self, _: &Context) {
        LOG.with_borrow_mut(|log| log.push("pre-freeze"));
    }

    async fn pre_stop(&self, _: &Context) {
        LOG.with_borrow_mut(|log| log.push("pre-stop"));
    }
}

/// Sends two requests at once and returns what each of them got.
fn overlapping<F: Function>(instance: Instance<F>) -> Vec<Result<String, String>> {
    let instance = Rc::new(instance);
    let replies = Rc::new(RefCell::new(Vec::new()));
    block_on(async {
        for _ in 0..2 {
            let (instance, replies) = (instance.clone(), replies.clone());
            spawn(async move {
                let reply = instance.invoke("").await;
                replies.borrow_mut().push(reply);
            });
        }
        while replies.borrow().len() < 2 {
            sleep(Duration::from_millis(1)).await;
        }
    });
    replies.take()
}

#[test]
fn two_first_requests_build_one_state() {
    assert_eq!(overlapping(Instance::<Slow<false>>::default()), [Ok("".into()), Ok("".into())]);
    assert_eq!(STARTS.get(), 1);
}

#[test]
fn a_failed_start_is_told_to_one_request_and_tried_again_for_the_next() {
    assert_eq!(overlapping(Instance::<Slow<true>>::default()), [Err("not yet".into()), Ok("".into())]);
    assert_eq!(STARTS.get(), 2);
}

#[test]
fn hooks_without_a_state_do_nothing() {
    let instance = Instance::<Slow<false>>::default();
    block_on(async {
        instance.pre_freeze().await;
        instance.pre_stop().await;
        instance.initialize().await.unwrap();
        instance.invoke("").await.unwrap();
        instance.pre_freeze().await;
        instance.pre_stop().await;
    });
    assert_eq!(STARTS.get(), 1);
    assert_eq!(LOG.take(), ["handle", "pre-freeze", "pre-stop"]);
}

#[test]
fn tasks_stand_still_between_two_windows_and_go_on_after() {
    let ticks = Rc::new(Cell::new(0));
    let counting = ticks.clone();
    block_on(async {
        spawn(async move {
            loop {
                sleep(Duration::from_millis(1)).await;
                counting.set(counting.get() + 1);
            }
        });
        sleep(Duration::from_millis(10)).await;
    });
    let parked = ticks.get();
    assert!(parked > 0);
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(ticks.get(), parked);
    block_on(sleep(Duration::from_millis(10)));
    assert!(ticks.get() > parked);
}
