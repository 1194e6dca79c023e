//! Where the time from a request's arrival to its answer went.
//!
//! One small value goes with each call and is told at the end of each [`Stage`]; what passed since the last one belongs to it. So nothing
//! is left out and nothing counted twice, whatever way the call took, and a warm call pays a few readings of the clock. The same numbers
//! reach `/metrics` (`lambent_stage_seconds`), the `REPORT` line where that is asked for, and the caller who asks for them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use metrics::{Histogram, histogram};

use crate::StartKind;

/// A part of a call's way, in the order of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the request, checking its signature, finding the function, admitting the call.
    Accept,
    /// Deciding which container runs it.
    Placement,
    /// Waiting: for a container that is about to be free, for a turn to start one, for the container's task.
    Queue,
    /// Getting a container: code, and a cell from the warming pool or one built now.
    Container,
    /// Making that cell the function's: its files and limits.
    Specialise,
    /// Starting the runtime's process, or telling the one that waits whose it is.
    RuntimeInit,
    /// Until the runtime asks for its first event: user code outside of the handler, and whatever of the runtime was not loaded ahead.
    UserInit,
    /// The handler: from handing over the event until its answer begins.
    Handler,
    /// From then on until the answer is whole.
    Answer,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Accept,
        Self::Placement,
        Self::Queue,
        Self::Container,
        Self::Specialise,
        Self::RuntimeInit,
        Self::UserInit,
        Self::Handler,
        Self::Answer,
    ];

    /// Its name in metrics, logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Placement => "placement",
            Self::Queue => "queue",
            Self::Container => "container",
            Self::Specialise => "specialise",
            Self::RuntimeInit => "runtime_init",
            Self::UserInit => "user_init",
            Self::Handler => "handler",
            Self::Answer => "answer",
        }
    }
}

/// What each stage of one call took so far.
#[derive(Debug, Clone, Copy)]
pub struct Stages {
    lap: Instant,
    took: [Duration; Stage::ALL.len()],
}

impl Stages {
    /// Of a request that arrived then.
    pub fn since(received_at: Instant) -> Self {
        Self { lap: received_at, took: [Duration::ZERO; Stage::ALL.len()] }
    }

    /// A stage ends now; it began where the last one ended. One that is passed more than once is added up.
    pub fn end(&mut self, stage: Stage) {
        self.end_at(stage, Instant::now());
    }

    /// A stage ended then.
    pub fn end_at(&mut self, stage: Stage, at: Instant) {
        if let Some(took) = self.took.get_mut(stage as usize) {
            *took += at.saturating_duration_since(self.lap);
        }
        self.lap = self.lap.max(at);
    }

    /// What a stage took.
    pub fn of(&self, stage: Stage) -> Duration {
        self.took.get(stage as usize).copied().unwrap_or_default()
    }

    /// The stages that the call passed.
    pub fn passed(&self) -> impl Iterator<Item = (Stage, Duration)> {
        Stage::ALL.into_iter().map(|stage| (stage, self.of(stage))).filter(|(_, took)| !took.is_zero())
    }

    /// As the value of a header, in the syntax of `Server-Timing`: `accept;dur=0.081, handler;dur=1.502`, in milliseconds.
    pub fn server_timing(&self) -> String {
        self.text(|text, stage, millis| write!(text, "{stage};dur={millis:.3}"))
    }

    /// For a person: `accept 0.081 ms, handler 1.502 ms`.
    pub(crate) fn words(&self) -> String {
        self.text(|text, stage, millis| write!(text, "{stage} {millis:.3} ms"))
    }

    fn text(&self, mut each: impl FnMut(&mut String, &str, f64) -> std::fmt::Result) -> String {
        let mut text = String::new();
        for (stage, took) in self.passed() {
            if !text.is_empty() {
                text.push_str(", ");
            }
            let _ = each(&mut text, stage.name(), took.as_secs_f64() * 1000.0);
        }
        text
    }
}

/// `lambent_stage_seconds`, its handles made once.
#[derive(Debug)]
pub(crate) struct StageMeters {
    warm: [Histogram; Stage::ALL.len()],
    cold: [Histogram; Stage::ALL.len()],
}

impl StageMeters {
    pub(crate) fn new() -> Self {
        let of = |start: &'static str| {
            Stage::ALL.map(|stage| histogram!("lambent_stage_seconds", "stage" => stage.name(), "start" => start))
        };
        Self { warm: of("warm"), cold: of("cold") }
    }

    /// Counts one call's stages; those it did not pass are not in it.
    pub(crate) fn record(&self, start: StartKind, stages: &Stages) {
        let of = match start {
            StartKind::Warm => &self.warm,
            StartKind::Cold => &self.cold,
        };
        for (stage, took) in stages.passed() {
            if let Some(histogram) = of.get(stage as usize) {
                histogram.record(took);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_fill_the_time_without_gap_or_overlap() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut stages = Stages::since(begun);
        stages.end_at(Stage::Accept, at(1));
        stages.end_at(Stage::Queue, at(3));
        stages.end_at(Stage::Handler, at(10));
        stages.end_at(Stage::Queue, at(14));
        assert_eq!(stages.of(Stage::Queue), Duration::from_millis(6));
        assert_eq!(stages.passed().map(|(_, took)| took).sum::<Duration>(), Duration::from_millis(14));
        assert_eq!(stages.server_timing(), "accept;dur=1.000, queue;dur=6.000, handler;dur=7.000");
        assert_eq!(stages.words(), "accept 1.000 ms, queue 6.000 ms, handler 7.000 ms");
        // A moment before the last one takes nothing away.
        stages.end_at(Stage::Answer, at(2));
        assert_eq!(stages.of(Stage::Answer), Duration::ZERO);
    }

    #[test]
    fn the_list_is_in_the_order_of_the_numbers() {
        assert!(Stage::ALL.iter().enumerate().all(|(index, stage)| *stage as usize == index));
    }
}
