//! Synthetic traces: who calls what and when, how long it takes, and when the result is needed. The policies see none of it in advance.
//!
//! Published shapes: durations are lognormal with log-mean -0.38 and log-sigma 2.36 seconds (Shahrad et al., "Serverless in the Wild", USENIX
//! ATC 2020, figure 7: average durations over all functions of Azure Functions in 2019), here truncated to 10 ms to 60 s; arrivals are a
//! two-state Markov-modulated Poisson process, so that there are bursts; callers fan out by a geometric number. How often each site calls is
//! skewed (Zipf). What was not published, and is assumed here, stands in docs/deadlines.md.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Microseconds.
pub type Micros = i64;
pub const SECOND: f64 = 1e6;

const FUNCTIONS: usize = 200;
const SITES: usize = 500;
const LOG_MEAN: f64 = -0.38;
const LOG_SIGMA: f64 = 2.36;
/// Of medians; what lies outside is drawn again.
const LEAST_SECONDS: f64 = 0.01;
const MOST_SECONDS: f64 = 60.0;
/// Of sites, those whose callers wait at once: as many as invocations by HTTP in that trace (figure 2 of the paper).
const NOW_SHARE: f64 = 0.36;
/// For the others: log-sigma, over sites, of what the caller does of its own meanwhile.
const SLACK_SIGMA: f64 = 1.0;
/// Calls of one invocation, on average, and at most.
const FAN_OUT: f64 = 3.0;
const MOST_FAN_OUT: usize = 16;
/// Mean seconds of calm and of bursts, and how much faster callers come in a burst.
const CALM: f64 = 60.0;
const BURST: f64 = 15.0;
const BURST_FACTOR: f64 = 3.0;

/// How a trace differs from call to call.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    pub name: &'static str,
    /// For how long callers that do not wait at once do something else, beyond the callee's median duration: the median of sites.
    pub slack_seconds: f64,
    /// Log-sigma of a callee's durations about its median.
    pub duration_sigma: f64,
    /// Log-sigma of what a site's callers do meanwhile, about its median.
    pub need_sigma: f64,
}

/// Calls of a site resemble each other, as those of a program do; their slack is no longer than many of them take.
const TIGHT: Variant = Variant { name: "tight", slack_seconds: 30.0, duration_sigma: 0.3, need_sigma: 0.25 };
/// The same with more time.
const PATIENT: Variant = Variant { name: "patient", slack_seconds: 120.0, ..TIGHT };
/// When a result is needed says nothing about the next time.
const ERRATIC: Variant = Variant { name: "erratic", slack_seconds: 120.0, duration_sigma: 1.0, need_sigma: 2.0 };
pub const VARIANTS: [Variant; 3] = [TIGHT, PATIENT, ERRATIC];

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub at: Micros,
    pub site: usize,
    pub callee: usize,
    /// How long it runs.
    pub duration: Micros,
    /// How long after its start its caller asks for the result.
    pub need: Micros,
    /// Whether its caller is of the kind that waits at once; what a static priority goes by.
    pub is_interactive: bool,
}

impl Call {
    /// How much longer its caller may wait than on an idle node, for it not to count as missed.
    pub fn tolerance(&self) -> Micros {
        (self.duration / 10).max(100_000)
    }

    /// When it must be done.
    pub fn deadline(&self) -> Micros {
        self.at + self.need.max(self.duration) + self.tolerance()
    }
}

struct Site {
    callee: usize,
    /// Seconds of the caller's own work; none: it waits at once.
    slack: Option<f64>,
}

/// Which trace.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub variant: Variant,
    pub seed: u64,
    /// Work that comes in a second, in seconds.
    pub work: f64,
    pub calls: usize,
}

/// Standard normal, by Box and Muller.
fn normal(rng: &mut SmallRng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

fn exponential(rng: &mut SmallRng, mean: f64) -> f64 {
    -mean * (1.0 - rng.random::<f64>()).ln()
}

/// Makes a trace; the same for the same seed. Two works of one seed differ in pace alone.
pub fn make(asked: Asked) -> Vec<Call> {
    let mut rng = SmallRng::seed_from_u64(asked.seed);
    let draws = std::iter::repeat_with(|| (LOG_MEAN + LOG_SIGMA * normal(&mut rng)).exp());
    let within = draws.filter(|seconds| (LEAST_SECONDS..=MOST_SECONDS).contains(seconds));
    let medians: Vec<f64> = within.take(FUNCTIONS).collect();
    let sites: Vec<Site> = (0..SITES)
        .map(|_| {
            let is_now = rng.random::<f64>() < NOW_SHARE;
            let slack = (asked.variant.slack_seconds.ln() + SLACK_SIGMA * normal(&mut rng)).exp();
            Site { callee: rng.random_range(0..FUNCTIONS), slack: (!is_now).then_some(slack) }
        })
        .collect();
    let popularity: Vec<f64> = (1..=SITES).map(|rank| 1.0 / rank as f64).collect();
    let all: f64 = popularity.iter().sum();
    let (mut calls, mut now, mut is_burst, mut left) = (Vec::new(), 0.0, false, exponential(&mut rng, CALM));
    while calls.len() < asked.calls {
        // In units of the calm pace; scaled to the work that was asked for when all is known.
        let gap = exponential(&mut rng, if is_burst { 1.0 / BURST_FACTOR } else { 1.0 });
        now += gap;
        left -= gap;
        if left <= 0.0 {
            is_burst = !is_burst;
            left = exponential(&mut rng, if is_burst { BURST } else { CALM });
        }
        let mut drawn = rng.random::<f64>() * all;
        let site = popularity
            .iter()
            .position(|weight| {
                drawn -= weight;
                drawn <= 0.0
            })
            .unwrap_or(0);
        let Site { callee, slack } = sites[site];
        let mut fan_out = 1;
        while fan_out < MOST_FAN_OUT && rng.random::<f64>() > 1.0 / FAN_OUT {
            fan_out += 1;
        }
        // Whoever fans out asks for all of it at the same time.
        let noise = (asked.variant.need_sigma * normal(&mut rng)).exp();
        let need = slack.map_or(0.0, |slack| medians[callee] + slack * noise);
        for _ in 0..fan_out {
            let duration = medians[callee] * (asked.variant.duration_sigma * normal(&mut rng)).exp();
            calls.push(Call {
                at: (now * SECOND) as Micros,
                site,
                callee,
                duration: (duration.min(2.0 * MOST_SECONDS) * SECOND) as Micros,
                need: (need * SECOND) as Micros,
                is_interactive: slack.is_none(),
            });
        }
    }
    let work: f64 = calls.iter().map(|call| call.duration as f64).sum::<f64>() / SECOND;
    let pace = work / (now * asked.work);
    calls.iter_mut().for_each(|call| call.at = (call.at as f64 * pace) as Micros);
    calls
}
