//! Function URLs over real connections; the functions behind them are stand-ins.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod control_plane;
mod requests;
mod support;
