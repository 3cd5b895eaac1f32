//! A value that is made once by an async function that may fail, while others wait for it.
//!
//! `instance` keeps a function's state in one. It never makes two values at a time, however many tasks ask.

use std::{
    cell::RefCell,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

pub(crate) struct Once<T>(RefCell<State<T>>);

enum State<T> {
    /// No task asked yet, or the last attempt failed.
    Absent,
    /// One task is making the value; these wait for it.
    Making(Vec<Waker>),
    Ready(Rc<T>),
}

impl<T> Once<T> {
    /// The value, if it has been made.
    pub(crate) fn get(&self) -> Option<Rc<T>> {
        match &*self.0.borrow() {
            State::Ready(value) => Some(value.clone()),
            State::Absent | State::Making(_) => None,
        }
    }

    /// Returns the value, and makes it first if needed. After a failed attempt the next waiting task tries again.
    pub(crate) async fn get_or_make<E>(&self, make: impl AsyncFnOnce() -> Result<T, E>) -> Result<Rc<T>, E> {
        let attempt = match poll_fn(|task| self.poll_turn(task.waker())).await {
            Turn::Done(value) => return Ok(value),
            Turn::Ours(attempt) => attempt,
        };
        let value = Rc::new(make().await?);
        attempt.0.settle(State::Ready(value.clone()));
        Ok(value)
    }

    fn poll_turn(&self, waker: &Waker) -> Poll<Turn<'_, T>> {
        let mut state = self.0.borrow_mut();
        match &mut *state {
            State::Ready(value) => Poll::Ready(Turn::Done(value.clone())),
            State::Making(waiting) => {
                if !waiting.iter().any(|known| known.will_wake(waker)) {
                    waiting.push(waker.clone());
                }
                Poll::Pending
            }
            State::Absent => {
                *state = State::Making(Vec::new());
                Poll::Ready(Turn::Ours(Attempt(self)))
            }
        }
    }

    /// Ends an attempt. The borrow ends before any task is woken.
    fn settle(&self, state: State<T>) {
        if let State::Making(waiting) = self.0.replace(state) {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once(RefCell::new(State::Absent))
    }
}

enum Turn<'a, T> {
    Done(Rc<T>),
    Ours(Attempt<'a, T>),
}

/// Held by the task that makes the value. If it is dropped early, by an error or with its task, the next task tries.
struct Attempt<'a, T>(&'a Once<T>);

impl<T> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        if self.0.get().is_none() {
            self.0.settle(State::Absent);
        }
    }
}
