//! One conformance suite that every back end passes, and what only the isolating one must.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

/// Each promise, once on each ground that can be had here: a module of tests for each.
macro_rules! promises {
    (@on $ground:ident, $bench:expr, ($($promise:ident),* $(,)?)) => {
        mod $ground {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                if let Some(bench) = $bench {
                    super::$promise(bench).await;
                }
            })*
        }
    };
    ({ $($ground:ident: $bench:expr),* $(,)? } $promises:tt) => {
        $(promises!(@on $ground, $bench, $promises);)*
    };
}

mod blank;
mod clone;
mod conformance;
mod escape;
mod freeze;
mod isolation;
mod measure;
mod node_death;
mod ordinary_user;
mod support;
mod template;
mod wasm;
