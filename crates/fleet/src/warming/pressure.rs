//! Whether the host is short of memory.
//!
//! Asked of the kernel: how long tasks stalled for want of memory (`/proc/pressure/memory`, where the kernel tells), and how much memory
//! could be had without stalling anybody (`MemAvailable`). Acting on either is far sooner than the kernel's own last resort.

use std::fmt;

/// Stalls of this share of time, in percent over ten seconds, are too much.
const STALLED_PERCENT: f64 = 10.0;
/// Less than this share of memory to be had is too little, in percent.
const AVAILABLE_PERCENT: u64 = 5;

/// How the host's memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// There is enough.
    Calm,
    /// Something should be given up.
    High,
}

/// Asks how the host's memory is.
#[derive(Clone, Copy)]
pub struct PressureProbe(pub fn() -> Pressure);

impl PressureProbe {
    /// Asks the kernel of this machine.
    pub const MACHINE: Self = Self(machine);

    pub(crate) fn ask(self) -> Pressure {
        (self.0)()
    }
}

impl fmt::Debug for PressureProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PressureProbe")
    }
}

fn machine() -> Pressure {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    judge(&read("/proc/pressure/memory"), &read("/proc/meminfo"))
}

/// What the kernel's two files say; what is missing or unknown says nothing.
fn judge(stalls: &str, memory: &str) -> Pressure {
    let stalled = stalls.lines().find_map(|line| {
        let rest = line.strip_prefix("some ")?;
        rest.split_whitespace().find_map(|field| field.strip_prefix("avg10=")?.parse::<f64>().ok())
    });
    let kib = |name: &str| {
        memory.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
    };
    let scarce = match (kib("MemAvailable:"), kib("MemTotal:")) {
        (Some(available), Some(total)) => available.saturating_mul(100) < total.saturating_mul(AVAILABLE_PERCENT),
        (None, _) | (_, None) => false,
    };
    if scarce || stalled.is_some_and(|percent| percent >= STALLED_PERCENT) { Pressure::High } else { Pressure::Calm }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: &str = "MemTotal:       1000000 kB\nMemFree: 10 kB\nMemAvailable:    500000 kB\n";

    fn stalls(percent: &str) -> String {
        format!(
            "some avg10={percent} avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n"
        )
    }

    #[test]
    fn either_sign_counts_and_silence_does_not() {
        assert_eq!(judge("", ""), Pressure::Calm);
        assert_eq!(judge(&stalls("0.00"), PLENTY), Pressure::Calm);
        assert_eq!(judge(&stalls("12.50"), PLENTY), Pressure::High);
        assert_eq!(judge("", "MemTotal: 1000000 kB\nMemAvailable: 49999 kB\n"), Pressure::High);
        assert_eq!(judge("nonsense\nsome avg10=much\n", "MemTotal: many kB\n"), Pressure::Calm);
    }
}
