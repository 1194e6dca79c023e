//! Orders of waiting runtimes, and the rule that nothing but those waits in a blank cell.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use crate::Error;
use crate::error::step;
use crate::port::Order;

/// What is refused twice, and in a cell that is not blank.
pub(crate) const SPECIALISE: &str = "specialise a cell that is not blank";
/// What is refused before a cell is somebody's.
pub(crate) const ORDER: &str = "give an order in a blank cell";
/// What is refused of anything but waiting runtimes.
pub(crate) const START: &str = "start a program in a blank cell";

/// What is refused of another back end's template.
pub(crate) const FORK: &str = "fork a template of another back end";

/// Longest order: what a pipe holds without anybody reading, so that writing never waits.
const MOST_BYTES: usize = 64 << 10;

/// Writes the whole order and closes the pipe.
pub(crate) fn send(pipe: OwnedFd, order: &Order) -> Result<(), Error> {
    let text = serde_json::to_vec(order).map_err(|error| step("write the order")(error.into()))?;
    if text.len() > MOST_BYTES {
        return Err(step("write the order")(io::Error::from_raw_os_error(libc::E2BIG)));
    }
    File::from(pipe).write_all(&text).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::Ended,
        _ => step("write the order")(error),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;

    fn order(value: &str) -> Order {
        Order {
            env: vec![("A".into(), value.into()), ("Z".into(), "grüß".into())],
            cwd: "/var/task".into(),
            snapshot: None,
        }
    }

    #[test]
    fn arrive_whole_and_end() {
        let (mut read, write) = io::pipe().unwrap();
        send(write.into(), &order("1")).unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, r#"{"env":{"A":"1","Z":"grüß"},"cwd":"/var/task"}"#);
    }

    #[test]
    fn never_wait() {
        let (read, write) = io::pipe().unwrap();
        assert!(matches!(send(write.into(), &order(&"x".repeat(MOST_BYTES))), Err(Error::Step { .. })));
        let (gone, write) = io::pipe().unwrap();
        drop((read, gone));
        assert!(matches!(send(write.into(), &order("1")), Err(Error::Ended)));
    }
}
