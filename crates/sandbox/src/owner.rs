//! Who made a directory or cgroup: leftovers of a dead node are told from the work of a living one by their name alone.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::procfs;

/// A back end of a node process: the process's number, when it started (so a reused number is not taken for it), and which back end
/// of that process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pid: u32,
    start: u64,
    serial: u32,
}

impl Owner {
    /// A new one of this process.
    pub(crate) fn me() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Self { pid, start: procfs::start_time(pid).unwrap_or(0), serial }
    }

    /// Whether that very process still runs.
    pub(crate) fn alive(self) -> bool {
        procfs::start_time(self.pid) == Some(self.start)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.pid, self.start, self.serial)
    }
}

impl FromStr for Owner {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, rest) = text.split_once('-').ok_or(())?;
        let (start, serial) = rest.split_once('-').ok_or(())?;
        let owner = Self {
            pid: pid.parse().map_err(drop)?,
            start: start.parse().map_err(drop)?,
            serial: serial.parse().map_err(drop)?,
        };
        Ok(owner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_text_and_knows_the_dead() {
        let me = Owner::me();
        assert_eq!(me.to_string().parse::<Owner>().unwrap(), me);
        assert!(me.alive());
        assert!(!Owner { start: me.start + 1, ..me }.alive());
        assert!("x-1".parse::<Owner>().is_err());
    }
}
