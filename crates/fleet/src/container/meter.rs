//! What a container is measured by.

use std::time::{Duration, Instant};

use lambent_model::FunctionVersion;
use lambent_model::limits::MIB;
use lambent_sandbox::Cell;
use metrics::{Counter, Histogram, counter, histogram};

use crate::StartKind;

/// How a call ended, as metrics know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    FunctionError,
    TimedOut,
    Crashed,
}

/// Handles made once, so that a warm call looks nothing up.
pub(crate) struct Meters {
    success: Counter,
    function_error: Counter,
    timed_out: Counter,
    crashed: Counter,
    duration: Histogram,
    cold_starts: Counter,
    warm_start: Histogram,
    cold_start: Histogram,
}

impl Meters {
    pub(crate) fn of(function: &FunctionVersion) -> Self {
        let name = function.arn.name.to_string();
        let invocations = |outcome: &'static str| counter!("lambent_invocations_total", "function" => name.clone(), "outcome" => outcome);
        Self {
            success: invocations("success"),
            function_error: invocations("function_error"),
            timed_out: invocations("timed_out"),
            crashed: invocations("crashed"),
            duration: histogram!("lambent_invocation_duration_seconds", "function" => name.clone()),
            cold_starts: counter!("lambent_cold_starts_total", "function" => name.clone()),
            // Request to first instruction of user code, over all functions: the number the whole design answers to.
            warm_start: histogram!("lambent_start_seconds", "start" => "warm"),
            cold_start: histogram!("lambent_start_seconds", "start" => "cold"),
        }
    }

    pub(crate) fn started(&self, start: StartKind, latency: Duration) {
        match start {
            StartKind::Warm => self.warm_start.record(latency),
            StartKind::Cold => {
                self.cold_starts.increment(1);
                self.cold_start.record(latency);
            }
        }
    }

    pub(crate) fn ended(&self, outcome: Outcome, duration: Duration) {
        match outcome {
            Outcome::Success => self.success.increment(1),
            Outcome::FunctionError => self.function_error.increment(1),
            Outcome::TimedOut => self.timed_out.increment(1),
            Outcome::Crashed => self.crashed.increment(1),
        }
        self.duration.record(duration);
    }
}

/// How old a reading of memory may be before another is taken. Reading costs several system calls; the peak only ever grows, and the
/// sandbox itself looks at it more often.
const FRESH: Duration = Duration::from_secs(1);

/// The most memory a container has used.
#[derive(Debug, Default)]
pub(super) struct Memory {
    peak_bytes: u64,
    bytes: u64,
    read_at: Option<Instant>,
}

impl Memory {
    /// Reads it again if the last reading is old.
    pub(super) async fn refresh(&mut self, cell: &dyn Cell) {
        if self.read_at.is_none_or(|at| at.elapsed() > FRESH) {
            self.read(cell).await;
        }
    }

    /// Reads it again.
    pub(super) async fn read(&mut self, cell: &dyn Cell) {
        if let Ok(usage) = cell.usage().await {
            self.bytes = usage.memory_bytes;
            self.peak_bytes = self.peak_bytes.max(usage.memory_peak_bytes);
        }
        self.read_at = Some(Instant::now());
    }

    /// What it used when that was last read, `/tmp` included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// In whole MiB, never beyond what the function has.
    pub(super) fn peak_mib(&self, limit: u32) -> u32 {
        u32::try_from(self.peak_bytes.div_ceil(MIB)).unwrap_or(u32::MAX).min(limit)
    }
}
