//! Barriers that the escape tests take away, one at a time.
//!
//! A test that only sees that nothing got out proves little: the probe may be wrong. So each probe runs twice, in an ordinary cell and
//! in one that lacks the barrier which is said to stop it, and must get out of the second. Without the feature `lower-barriers`, which
//! only this crate's own tests turn on, the question whether a barrier is lowered is always answered with no at compile time.

use serde::{Deserialize, Serialize};

/// One barrier to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lowered {
    /// A host user of the cell's own: it is the node's user instead.
    User,
    /// Process ids of its own.
    Processes,
    /// A network of its own.
    Network,
    /// System V objects and message queues of its own.
    Ipc,
    /// A host name of its own.
    Hostname,
    /// A view of cgroups that begins at its own.
    Cgroup,
    /// A root of its own.
    Root,
    /// Mounts that cannot be written to.
    ReadOnly,
    /// The covers over `/proc`.
    Proc,
    /// An agent that cannot be looked into.
    Agent,
    /// No capability, and no way to one.
    Capabilities,
    /// The filter of system calls.
    Filter,
    /// No descriptor of the agent in programs.
    Descriptors,
}

/// What a cell is made without; nothing, unless a test says so.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Without {
    #[cfg(feature = "lower-barriers")]
    lowered: Option<Lowered>,
}

impl Without {
    #[cfg(feature = "lower-barriers")]
    pub(crate) fn barrier(lowered: Lowered) -> Self {
        Self { lowered: Some(lowered) }
    }

    /// Whether this barrier is to be raised.
    pub(crate) fn keeps(self, barrier: Lowered) -> bool {
        #[cfg(feature = "lower-barriers")]
        return self.lowered != Some(barrier);
        #[cfg(not(feature = "lower-barriers"))]
        {
            let _ = barrier;
            true
        }
    }
}
