//! One instance of a function as the host sees it: takes and returns bytes and texts, and uses types inside.
//!
//! `export` owns a component's instance, `testing` runs others. It decides only when the state is built; the host
//! decides the order of calls.

use crate::{Context, FromEvent, Function, IntoReply, Result, once::Once};

/// An instance of a function. Its state is built by the first call that needs it.
pub struct Instance<F> {
    function: Once<F>,
}

impl<F: Function> Instance<F> {
    /// The `initializer` export: builds the state.
    pub async fn initialize(&self, ctx: &Context) -> Result<(), String> {
        self.function.get_or_make(async || F::initialize(ctx).await).await.map(drop).map_err(|error| error.to_string())
    }

    /// The `handler` export. Builds the state first if the operator has disabled the initializer.
    pub async fn handle(&self, ctx: &Context, event: Vec<u8>) -> Result<Vec<u8>, String> {
        self.reply(ctx, event).await.map_err(|error| error.to_string())
    }

    /// The `pre-freeze` export. Without a state there is nothing to flush.
    pub async fn pre_freeze(&self, ctx: &Context) {
        if let Some(function) = self.function.get() {
            function.pre_freeze(ctx).await;
        }
    }

    /// The `pre-stop` export. Without a state there is nothing to close.
    pub async fn pre_stop(&self, ctx: &Context) {
        if let Some(function) = self.function.get() {
            function.pre_stop(ctx).await;
        }
    }

    async fn reply(&self, ctx: &Context, event: Vec<u8>) -> Result<Vec<u8>> {
        let function = self.function.get_or_make(async || F::initialize(ctx).await).await?;
        let event = F::Event::from_event(event)?;
        function.handle(ctx, event).await?.into_reply()
    }
}

impl<F> Default for Instance<F> {
    fn default() -> Self {
        Instance { function: Once::default() }
    }
}
