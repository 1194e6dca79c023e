//! The line of calls in virtual time, beside other policies, on synthetic traces; run by `cargo xtask sim deadlines`.
//!
//! `deadlines SEEDS CALLS`: so many seeds, from 1 on, of traces with so many calls, of which the first half is history to learn from and does not
//! count.
//! Prints JSON lines: what each policy misses at each load (`misses`) and at the one where first come, first served misses ten percent (`tenth`), and
//! the least capacity at which it misses no more than one percent (`capacity`). Virtual time is all there is: the same seeds print the same lines.
#![allow(clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

mod policy;
mod trace;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::error::Error;

use policy::{Lined, Policy, Queues};
use serde_json::json;
use trace::{Asked, Call, Micros, Variant};

/// Places of the node that is loaded.
const PLACES: usize = 64;
const LOADS: [f64; 7] = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
const POLICIES: [&str; 4] = ["fifo", "priority", "learned", "foresight"];
/// Misses that the least capacity is looked for with.
const ALLOWED: f64 = 0.01;
/// Of that work.
const WORK: f64 = 32.0;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Done(usize),
    Come(usize),
    Asked(usize),
    Wake,
}

/// What came of a trace.
#[derive(Default)]
struct Outcome {
    /// Of calls that count: missed, and all; those whose callers wait at once apart.
    missed: [usize; 2],
    counted: [usize; 2],
    /// How long those waited for a place, sorted.
    waits: Vec<Micros>,
    most_running: usize,
}

impl Outcome {
    fn missed(&self) -> f64 {
        share(self.missed.iter().sum(), self.counted.iter().sum())
    }

    fn p99_wait(&self) -> Micros {
        self.waits.get(self.waits.len() * 99 / 100).copied().unwrap_or_default()
    }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn run(calls: &[Call], policy: &mut dyn Policy, places: usize) -> Outcome {
    let mut events: BinaryHeap<Reverse<(Micros, Event)>> =
        calls.iter().enumerate().map(|(id, call)| Reverse((call.at, Event::Come(id)))).collect();
    let (mut outcome, mut running, mut left, mut woken) = (Outcome::default(), 0, calls.len(), Micros::MAX);
    while let Some(Reverse((now, event))) = events.pop() {
        match event {
            Event::Come(id) => {
                policy.come(now, id, &calls[id]);
                events.push(Reverse((now + calls[id].need, Event::Asked(id))));
            }
            Event::Asked(id) => policy.asked(now, id, &calls[id]),
            Event::Done(id) => {
                policy.done(id, &calls[id]);
                (running, left) = (running - 1, left - 1);
                if id >= calls.len() / 2 {
                    let kind = usize::from(calls[id].is_interactive);
                    outcome.counted[kind] += 1;
                    outcome.missed[kind] += usize::from(now > calls[id].deadline());
                    if calls[id].is_interactive {
                        outcome.waits.push(now - calls[id].duration - calls[id].at);
                    }
                }
            }
            Event::Wake => woken = Micros::MAX,
        }
        // What happens at the same time is seen together.
        if events.peek().is_some_and(|Reverse((at, next))| *at == now && !matches!(next, Event::Wake)) {
            continue;
        }
        while let Some(id) = policy.next(now, places - running, running) {
            running += 1;
            events.push(Reverse((now + calls[id].duration, Event::Done(id))));
        }
        outcome.most_running = outcome.most_running.max(running);
        if let Some(at) = policy.wake_at(now).filter(|at| *at < woken) {
            woken = at.max(now + 1);
            events.push(Reverse((woken, Event::Wake)));
        }
    }
    assert_eq!((left, running), (0, 0), "a call was lost");
    outcome.waits.sort_unstable();
    outcome
}

fn policy(name: &str, places: usize) -> Box<dyn Policy> {
    // What can wait leaves a quarter of the node to what cannot.
    let hold_back_from = places * 3 / 4;
    match name {
        "fifo" => Box::new(Queues::fifo()),
        "priority" => Box::new(Queues::priority()),
        "learned" => Box::new(Lined::learned(hold_back_from)),
        _ => Box::new(Lined::perfect(hold_back_from)),
    }
}

fn misses(variant: Variant, seed: u64, calls: usize) {
    for load in LOADS {
        let trace = trace::make(Asked { variant, seed, work: load * PLACES as f64, calls });
        for name in POLICIES {
            let outcome = run(&trace, policy(name, PLACES).as_mut(), PLACES);
            let of = |kind: usize| 100.0 * share(outcome.missed[kind], outcome.counted[kind]);
            let line = json!({
                "sim": "deadlines", "case": "misses", "variant": variant.name, "seed": seed, "load": load, "policy": name,
                "missed_percent": 100.0 * outcome.missed(), "missed_now_percent": of(1), "missed_later_percent": of(0),
                "p99_wait_now_ms": outcome.p99_wait() as f64 / 1e3, "most_running": outcome.most_running,
            });
            println!("{line}");
        }
    }
}

/// What all miss at the load where first come, first served misses ten percent, which is found by halving.
fn tenth(variant: Variant, seed: u64, calls: usize) {
    let at = |load: f64| trace::make(Asked { variant, seed, work: load * PLACES as f64, calls });
    let (mut less, mut more) = (0.0, 1.0);
    for _ in 0..8 {
        let load = f64::midpoint(less, more);
        let is_more = run(&at(load), policy("fifo", PLACES).as_mut(), PLACES).missed() > 0.1;
        if is_more { more = load } else { less = load }
    }
    let trace = at(more);
    for name in POLICIES {
        let missed_percent = 100.0 * run(&trace, policy(name, PLACES).as_mut(), PLACES).missed();
        let line = json!({
            "sim": "deadlines", "case": "tenth", "variant": variant.name, "seed": seed, "load": more, "policy": name,
            "missed_percent": missed_percent,
        });
        println!("{line}");
    }
}

/// The fewest places with which a policy misses no more than what is allowed, by halving.
fn capacity(variant: Variant, seed: u64, calls: usize) {
    let trace = trace::make(Asked { variant, seed, work: WORK, calls });
    for name in POLICIES {
        let (mut too_few, mut enough) = (WORK as usize / 2, WORK as usize * 16);
        while enough - too_few > 1 {
            let places = usize::midpoint(too_few, enough);
            let holds = run(&trace, policy(name, places).as_mut(), places).missed() <= ALLOWED;
            if holds { enough = places } else { too_few = places }
        }
        let line = json!({
            "sim": "deadlines", "case": "capacity", "variant": variant.name, "seed": seed, "policy": name,
            "allowed_percent": 100.0 * ALLOWED, "places": enough,
        });
        println!("{line}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seeds, calls] = arguments.as_slice() else { return Err("usage: deadlines SEEDS CALLS".into()) };
    let (seeds, calls): (u64, usize) = (seeds.parse()?, calls.parse()?);
    for seed in 1..=seeds {
        for variant in trace::VARIANTS {
            misses(variant, seed, calls);
            tenth(variant, seed, calls);
            capacity(variant, seed, calls);
        }
    }
    Ok(())
}
