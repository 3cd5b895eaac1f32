//! The trait that a function's author implements. Nothing else is required.
//!
//! `instance` calls it, in the order that the host decides. It never sees bytes: `event` converts them to types.

use crate::{Context, FromEvent, IntoReply, Result};

/// A function: its value is the state of one instance, and its methods are called during the instance's lifecycle.
///
/// The order of calls is `initialize`, then any number of `handle` (overlapping only if the function's `concurrency` is
/// above 1), `pre_freeze` each time the last `handle` has ended, and `pre_stop` at the end.
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
    /// On an error, its text answers the requests that waited for this instance; the next request starts a new one. If
    /// the operator has disabled the initializer, the first request builds the state instead, within its own timeout.
    async fn initialize(ctx: &Context) -> Result<Self>;

    /// Answers one request.
    ///
    /// An error's text, with its causes, is sent to the caller, so it must contain no secrets.
    async fn handle(&self, ctx: &Context, event: Self::Event) -> Result<Self::Reply>;

    /// Runs before each freeze, after the last request in flight was answered. Flush here.
    ///
    /// No caller waits for it. After it returns, nothing in the instance runs until the next request.
    async fn pre_freeze(&self, ctx: &Context) {
        let _ = ctx;
    }

    /// Runs once before the instance is stopped gracefully. Close sessions and save what must be kept here.
    ///
    /// It is not called after a crash, so do not keep important data only in memory until here.
    async fn pre_stop(&self, ctx: &Context) {
        let _ = ctx;
    }
}
