//! One door for every invocation.
