//! Steps of making a cell: named for people, timed, and each able to fail.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::root;

/// A step that failed.
pub(super) struct Fault {
    pub(super) step: Cow<'static, str>,
    cause: io::Error,
}

impl Fault {
    /// The error's number, and what it is about if that is one thing.
    pub(super) fn cause(&self) -> (i32, Option<PathBuf>) {
        let about = self.cause.get_ref().and_then(|inner| inner.downcast_ref::<root::At>());
        let errno = about.map_or(&self.cause, |about| &about.cause).raw_os_error().unwrap_or(libc::EIO);
        (errno, about.map(|about| about.path.clone()))
    }
}

/// Runs steps, remembering how long each took.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) took: Vec<(Cow<'static, str>, u64)>,
}

impl Steps {
    pub(super) fn step<T>(&mut self, name: &'static str, result: impl FnOnce() -> io::Result<T>) -> Result<T, Fault> {
        let begin = Instant::now();
        let value = result().map_err(|cause| Fault { step: Cow::Borrowed(name), cause })?;
        self.took.push((Cow::Borrowed(name), begin.elapsed().as_micros().try_into().unwrap_or(u64::MAX)));
        Ok(value)
    }
}
