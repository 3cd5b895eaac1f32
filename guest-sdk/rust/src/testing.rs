//! Functions under plain `cargo test`, without a host and without a component.
//!
//! A function's own tests call this; it does not exist in a component. It runs the author's code as it is, with real
//! time and real tasks, and never touches the network: a closure answers for it.
//!
//! Either call the methods of [`Function`] by hand with a [`Context::for_test`], or let an [`Instance`] do what the
//! host does, with bytes in and out.
//!
//! Each test runs in a thread of its own, and a thread stands for an instance: its tasks go on inside of [`block_on`]
//! and stand still between two of them, as they do while an instance is parked.

use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};

use crate::{
    Context, Function, Result,
    http::{Request, Response},
    instance, native,
};

/// Runs a future to its end in this thread. Tasks that it spawned and that are not done go on in the next call.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    native::block_on(future)
}

/// Answers each [`http`](crate::http) request of this thread from now on.
pub fn answer_http(answer: impl Fn(&Request) -> Result<Response> + 'static) {
    native::answer_http(Rc::new(answer));
}

impl Context {
    /// A context as a test needs one: a first attempt, with a minute left. Change what matters to the test.
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
    /// Builds the state ahead of the first request, as the host does unless the initializer is switched off.
    pub async fn initialize(&self) -> Result<(), String> {
        self.0.initialize(&Context::for_test()).await
    }

    /// Sends one event. The reply comes back as text, an error as the text that a caller would read.
    pub async fn invoke(&self, event: impl Into<Vec<u8>>) -> Result<String, String> {
        let reply = self.0.handle(&Context::for_test(), event.into()).await?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }

    /// Calls the hook that runs before each parking.
    pub async fn pre_freeze(&self) {
        self.0.pre_freeze(&Context::for_test()).await;
    }

    /// Calls the hook that runs before the end.
    pub async fn pre_stop(&self) {
        self.0.pre_stop(&Context::for_test()).await;
    }
}

impl<F> Default for Instance<F> {
    fn default() -> Self {
        Instance(instance::Instance::default())
    }
}
