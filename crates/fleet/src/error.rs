//! Why a fleet could not run a call, or could not make code ready. A function's own failures are no errors of the fleet: they
//! come back as [`crate::FunctionResponse::FunctionError`].

/// A call was not run; running it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node holds as many containers, or has promised as much memory, as it may, and none is idle.
    #[error("this node has no room for another container ({containers} containers, {memory_mib} MiB)")]
    Full {
        /// Containers there are.
        containers: usize,
        /// Memory promised to them.
        memory_mib: u64,
    },
    /// The function's runtime is not on this machine.
    #[error("runtime {runtime} is not installed on this machine; there are: {found}")]
    NoRuntime {
        /// What the function asks for.
        runtime: String,
        /// What this machine has, comma-separated.
        found: String,
    },
    /// The code could not be made ready.
    #[error("the code of the function could not be made ready")]
    Prepare(#[source] PrepareError),
    /// No container could be made.
    #[error("no container could be made")]
    Sandbox(#[source] lambent_sandbox::Error),
    /// The container was lost to a fault of this node, not of the function.
    #[error("the container was lost")]
    Lost,
    /// What the function wants to be done after its snapshot was restored failed.
    #[error("the after-restore hook of the function failed: {0}")]
    Restore(String),
    /// The same took too long.
    #[error("the snapshot of the function was not restored within {0:?}")]
    RestoreTimedOut(std::time::Duration),
    /// The fleet is shutting down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

/// Code or layers could not be put into the cache.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The blob is not in the store.
    #[error("code {digest} is not in the store")]
    Missing {
        /// Which blob.
        digest: lambent_model::Digest,
    },
    /// The store failed.
    #[error("code {digest} could not be read")]
    Store {
        /// Which blob.
        digest: lambent_model::Digest,
        /// The cause.
        #[source]
        source: lambent_store::Error,
    },
    /// The WebAssembly component cannot be run.
    #[error("the WebAssembly component of code {digest} cannot be used: {reason}")]
    Component {
        /// Which blob.
        digest: lambent_model::Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The compiler of WebAssembly could not be run.
    #[error("the WebAssembly component could not be compiled")]
    Compiler(#[source] lambent_sandbox::Error),
    /// The package is not one that can be unpacked.
    #[error("code {digest} could not be unpacked: {reason}")]
    Package {
        /// Which blob.
        digest: lambent_model::Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// A file operation failed.
    #[error("{step} failed at {path:?}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Where.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
