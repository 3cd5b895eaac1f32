//! Functions under plain `cargo test`, without a host and without a component.
//!
//! A function's own tests call this; it does not exist in a component. It runs the author's code unchanged, with real
//! time and real tasks, and never uses the network: a closure answers instead.
//!
//! Either call the methods of [`Function`] directly with a [`Context::for_test`], or use an [`Instance`], which takes
//! and returns bytes as the host does.
//!
//! Each test runs in its own thread, and each thread acts as an instance: its tasks run only inside [`block_on`].
//! Between two calls of it they do not run, as in a parked instance.

use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};

use crate::{
    Context, Function, Result,
    http::{Request, Response},
    instance, native,
};

/// Runs a future to its end in this thread. Tasks that it spawned and that are not done continue in the next call.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    native::block_on(future)
}

/// Answers each [`http`](crate::http) request of this thread from now on.
pub fn answer_http(answer: impl Fn(&Request) -> Result<Response> + 'static) {
    native::answer_http(Rc::new(answer));
}

impl Context {
    /// A context for tests: a first attempt, with a minute left. Change the fields that matter to the test.
    pub fn for_test() -> Self {
        Context {
            request_id: "test-request".into(),
            function: "test".into(),
            version: "LATEST".into(),
            instance_id: "test-instance".into(),
            memory_mb: 128,
            deadline: SystemTime::now() + Duration::from_secs(60),
            attempt: 1,
            traceparent: None,
        }
    }
}

/// One instance of a function, called as the host calls it.
///
/// ```
/// # use dormouse_sdk::{Context, Function, Json, Result};
/// # struct Double;
/// # impl Function for Double {
/// #     type Event = Json<u64>;
/// #     type Reply = Json<u64>;
/// #     async fn initialize(_: &Context) -> Result<Self> { Ok(Double) }
/// #     async fn handle(&self, _: &Context, Json(n): Json<u64>) -> Result<Json<u64>> { Ok(Json(2 * n)) }
/// # }
/// use dormouse_sdk::testing::{Instance, block_on};
///
/// let double = Instance::<Double>::default();
/// block_on(async {
///     assert_eq!(double.invoke("21").await.unwrap(), "42");
///     assert!(double.invoke("many").await.unwrap_err().starts_with("expected an event of JSON for u64"));
///     double.pre_freeze().await;
/// });
/// ```
pub struct Instance<F>(instance::Instance<F>);

impl<F: Function> Instance<F> {
    /// Builds the state before the first request, as the host does unless the initializer is disabled.
    pub async fn initialize(&self) -> Result<(), String> {
        self.0.initialize(&Context::for_test()).await
    }

    /// Sends one event. Returns the reply as text, or the error's text that a caller would get.
    pub async fn invoke(&self, event: impl Into<Vec<u8>>) -> Result<String, String> {
        let reply = self.0.handle(&Context::for_test(), event.into()).await?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }

    /// Calls the hook that runs before each freeze.
    pub async fn pre_freeze(&self) {
        self.0.pre_freeze(&Context::for_test()).await;
    }

    /// Calls the hook that runs before the instance is stopped.
    pub async fn pre_stop(&self) {
        self.0.pre_stop(&Context::for_test()).await;
    }
}

impl<F> Default for Instance<F> {
    fn default() -> Self {
        Instance(instance::Instance::default())
    }
}
