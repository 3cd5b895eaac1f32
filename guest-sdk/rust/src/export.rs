//! How a type becomes a component: connects the exports of the WIT world to one [`Instance`].
//!
//! Authors use only [`export!`](crate::export!). The rest is public only for the code that the macro generates in their
//! crate. In a native build there is nothing to export, and the macro only checks that the type is a function.

pub use crate::instance::Instance;

use std::rc::Rc;

use crate::Function;

/// Exports a type as this component's function, with all its hooks.
///
/// Use it once per crate, at the top level: `dormouse_sdk::export!(Counter);`
#[macro_export]
macro_rules! export {
    ($function:ident) => {
        impl $crate::export::Exported for $function {
            fn instance() -> ::std::rc::Rc<$crate::export::Instance<Self>> {
                ::std::thread_local! {
                    static INSTANCE: ::std::rc::Rc<$crate::export::Instance<$function>> =
                        ::std::default::Default::default();
                }
                INSTANCE.with(::std::rc::Rc::clone)
            }
        }

        $crate::export::component!($function);
    };
}

/// A function that its component exports.
pub trait Exported: Function {
    /// The component's only instance.
    fn instance() -> Rc<Instance<Self>>;
}

#[cfg(not(target_family = "wasm"))]
#[macro_export]
#[doc(hidden)]
macro_rules! native_component {
    ($function:ident) => {
        // Counts as a use, so that the compiler does not take the function for dead code.
        const _: fn() -> ::std::rc::Rc<$crate::export::Instance<$function>> =
            <$function as $crate::export::Exported>::instance;
    };
}

#[cfg(not(target_family = "wasm"))]
pub use crate::native_component as component;

#[cfg(target_family = "wasm")]
pub use component::{bindings, component};

#[cfg(target_family = "wasm")]
mod component {
    use std::time::{Duration, SystemTime};

    use super::Exported;
    use crate::Context;

    pub mod bindings {
        #![allow(
            missing_docs,
            unsafe_code,
            unreachable_pub,
            clippy::too_many_arguments,
            reason = "written by wit-bindgen"
        )]

        wit_bindgen::generate!({
            path: "../../wit",
            world: "function-with-initializer",
            pub_export_macro: true,
            default_bindings_module: "dormouse_sdk::export::bindings",
        });
    }

    pub use bindings::export as component;

    impl<F: Exported> bindings::Guest for F {
        async fn initializer(ctx: bindings::Context) -> Result<(), String> {
            F::instance().initialize(&ctx.into()).await
        }

        async fn handler(ctx: bindings::Context, event: Vec<u8>) -> Result<Vec<u8>, String> {
            F::instance().handle(&ctx.into(), event).await
        }

        async fn pre_freeze(ctx: bindings::Context) {
            F::instance().pre_freeze(&ctx.into()).await;
        }

        async fn pre_stop(ctx: bindings::Context) {
            F::instance().pre_stop(&ctx.into()).await;
        }
    }

    impl From<bindings::Context> for Context {
        fn from(ctx: bindings::Context) -> Self {
            Context {
                request_id: ctx.request_id,
                function: ctx.function,
                version: ctx.version,
                instance_id: ctx.instance_id,
                memory_mb: ctx.memory_mb,
                deadline: SystemTime::UNIX_EPOCH + Duration::from_millis(ctx.deadline_ms),
                attempt: ctx.attempt,
                traceparent: ctx.traceparent,
            }
        }
    }
}
