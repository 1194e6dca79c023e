//! One conformance suite that every back end passes, and what only the isolating one must.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

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
