//! What an instance of the warming pool is ready for.

use std::fmt;

use lambent_model::FunctionVersion;
use lambent_model::function::Runtime;

use crate::environment::may_wait;

/// Instances of one kind serve the same functions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A Python interpreter waits in it.
    Python {
        /// The N of `python3.N`.
        minor: u8,
    },
    /// A Node.js process waits in it.
    Node {
        /// The N of `nodejsN.x`.
        major: u8,
        /// The memory of the functions it can serve: V8 makes its heap for that, once.
        memory_mib: u32,
    },
    /// Nothing runs in it: for a bootstrap that comes with the code.
    Shell,
}

impl Kind {
    /// The kind that can serve `function`; none where its process must be started for it alone.
    pub(crate) fn of(function: &FunctionVersion) -> Option<Self> {
        match function.runtime {
            Runtime::Provided(_) => Some(Self::Shell),
            Runtime::Wasm => None,
            Runtime::Python { .. } | Runtime::Node { .. } if !may_wait(&function.runtime, &function.environment) => {
                None
            }
            Runtime::Python { minor } => Some(Self::Python { minor }),
            Runtime::Node { major } => Some(Self::Node { major, memory_mib: function.memory_mib }),
        }
    }

    /// The runtime that waits in it.
    pub(crate) fn runtime(&self) -> Option<Runtime> {
        match self {
            Self::Python { minor } => Some(Runtime::Python { minor: *minor }),
            Self::Node { major, .. } => Some(Runtime::Node { major: *major }),
            Self::Shell => None,
        }
    }

    /// What a waiting one takes of the machine's memory, agent included, roughly. A forked Python shares nearly all with its template.
    pub(crate) fn cost_mib(&self) -> u64 {
        match self {
            Self::Python { .. } => 4,
            Self::Node { .. } => 48,
            Self::Shell => 2,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.runtime()) {
            (Self::Node { memory_mib, .. }, Some(runtime)) => write!(f, "{runtime}/{memory_mib}"),
            (_, Some(runtime)) => runtime.fmt(f),
            (_, None) => f.write_str("provided"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::placement::tests::version;

    #[test]
    fn follow_what_a_function_needs() {
        let mut function = version(0, 128);
        assert_eq!(Kind::of(&function), Some(Kind::Shell));
        function.runtime = Runtime::Python { minor: 12 };
        assert_eq!(Kind::of(&function).unwrap().to_string(), "python3.12");
        function.runtime = Runtime::Node { major: 20 };
        assert_eq!(Kind::of(&function).unwrap().to_string(), "nodejs20.x/128");
        function.environment.insert("NODE_OPTIONS".to_owned(), "--inspect".to_owned());
        assert_eq!(Kind::of(&function), None, "only a start of its own obeys that");
        function.runtime = Runtime::Wasm;
        assert_eq!(Kind::of(&function), None);
    }
}
