//! Why a cell could not do what was asked.

use std::borrow::Cow;

/// Errors of a sandbox back end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refuses a barrier this back end promises; no cell is made without it.
    #[error("this host cannot give {barrier}: {advice}")]
    BarrierUnavailable {
        /// Which barrier.
        barrier: &'static str,
        /// What an operator can do.
        advice: String,
    },
    /// A step of making or using a cell failed.
    #[error("{step} failed")]
    Step {
        /// The step, named as the system call or action it is.
        step: Cow<'static, str>,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be started inside the cell; AWS reports it as `Runtime.InvalidEntrypoint`.
    #[error("cannot execute {path:?}")]
    Exec {
        /// The program's path inside the cell.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The cell has ended.
    #[error("the cell has ended")]
    Ended,
}

/// For `map_err`: wraps the cause with the step that failed.
pub(crate) fn step(step: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Step { step: Cow::Borrowed(step), source }
}
