//! The trait that a function's author implements, and the only thing an author has to.
//!
//! `instance` calls it, in the order that the host decided. It never sees bytes: `event` has turned them into types.

use crate::{Context, FromEvent, IntoReply, Result};

/// A function: the value is one instance's state, the methods are its lifecycle.
///
/// The order of calls is `initialize`, then any number of `handle` (overlapping only if the function is configured
/// with a `concurrency` above 1), a `pre_freeze` each time the last of them ended, and `pre_stop` at the very end.
///
/// ```
/// use dormouse_sdk::{Context, Function, Json, Result};
///
/// struct Sum;
///
/// impl Function for Sum {
///     type Event = Json<Vec<i64>>;
///     type Reply = Json<i64>;
///
///     async fn initialize(_: &Context) -> Result<Self> {
///         Ok(Sum)
///     }
///
///     async fn handle(&self, _: &Context, Json(numbers): Json<Vec<i64>>) -> Result<Json<i64>> {
///         Ok(Json(numbers.iter().sum()))
///     }
/// }
/// ```
#[expect(async_fn_in_trait, reason = "an instance has one thread, so nobody asks whether the futures are Send")]
pub trait Function: Sized + 'static {
    /// What a request carries: `Vec<u8>`, `String`, `()` or [`Json`](crate::Json).
    type Event: FromEvent;

    /// What a request is answered with: `Vec<u8>`, `String`, `&'static str`, `()` or [`Json`](crate::Json).
    type Reply: IntoReply;

    /// Builds the state of a new instance, once, before its first request.
    ///
    /// An error answers the requests that waited for this instance; the next request starts a new one. When the
    /// operator has switched the initializer hook off, the first request builds the state instead, within its own time.
    async fn initialize(ctx: &Context) -> Result<Self>;

    /// Answers one request.
    ///
    /// An error's text, with its causes, reaches the caller, so it must hold no secrets.
    async fn handle(&self, ctx: &Context, event: Self::Event) -> Result<Self::Reply>;

    /// Runs before each parking, after the last request in flight was answered: the place to flush.
    ///
    /// No caller waits for it. When it returns, nothing of the instance runs until the next request.
    async fn pre_freeze(&self, ctx: &Context) {
        let _ = ctx;
    }

    /// Runs once before the instance is dropped in order: the place to close sessions and to save what must stay.
    ///
    /// A crash leaves nobody to call, so nothing that matters should exist only until here.
    async fn pre_stop(&self, ctx: &Context) {
        let _ = ctx;
    }
}
