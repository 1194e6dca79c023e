//! The files of the language runtimes, as they are laid below `/var/runtime`.
//!
//! Included by path where they are written to disk: `#[path = "../../../runtimes/files.rs"] mod runtimes;`.

/// Path below `/var/runtime` and content of every file.
pub const FILES: &[(&str, &str)] = &[
    ("python/bootstrap.py", include_str!("python/bootstrap.py")),
    ("python/_lambent/__init__.py", include_str!("python/_lambent/__init__.py")),
    ("python/_lambent/client.py", include_str!("python/_lambent/client.py")),
    ("python/_lambent/clone.py", include_str!("python/_lambent/clone.py")),
    ("python/_lambent/context.py", include_str!("python/_lambent/context.py")),
    ("python/_lambent/faults.py", include_str!("python/_lambent/faults.py")),
    ("python/_lambent/handler.py", include_str!("python/_lambent/handler.py")),
    ("python/_lambent/hooks.py", include_str!("python/_lambent/hooks.py")),
    ("python/_lambent/late.py", include_str!("python/_lambent/late.py")),
    ("python/_lambent/logs.py", include_str!("python/_lambent/logs.py")),
    ("python/_lambent/loop.py", include_str!("python/_lambent/loop.py")),
    ("python/_lambent/marshal.py", include_str!("python/_lambent/marshal.py")),
    ("python/_lambent/memory.py", include_str!("python/_lambent/memory.py")),
    ("python/_lambent/records.py", include_str!("python/_lambent/records.py")),
    ("python/_lambent/snapshot.py", include_str!("python/_lambent/snapshot.py")),
    ("python/_lambent/template.py", include_str!("python/_lambent/template.py")),
    ("python/_lambent/waiting.py", include_str!("python/_lambent/waiting.py")),
    ("python/snapshot_restore_py/__init__.py", include_str!("python/snapshot_restore_py/__init__.py")),
    ("node/bootstrap.cjs", include_str!("node/bootstrap.cjs")),
    ("node/lambent/buffered.cjs", include_str!("node/lambent/buffered.cjs")),
    ("node/lambent/client.cjs", include_str!("node/lambent/client.cjs")),
    ("node/lambent/context.cjs", include_str!("node/lambent/context.cjs")),
    ("node/lambent/errors.cjs", include_str!("node/lambent/errors.cjs")),
    ("node/lambent/handler.cjs", include_str!("node/lambent/handler.cjs")),
    ("node/lambent/idle.cjs", include_str!("node/lambent/idle.cjs")),
    ("node/lambent/logs.cjs", include_str!("node/lambent/logs.cjs")),
    ("node/lambent/loop.cjs", include_str!("node/lambent/loop.cjs")),
    ("node/lambent/store.cjs", include_str!("node/lambent/store.cjs")),
    ("node/lambent/streaming.cjs", include_str!("node/lambent/streaming.cjs")),
    ("node/lambent/waiting.cjs", include_str!("node/lambent/waiting.cjs")),
];
