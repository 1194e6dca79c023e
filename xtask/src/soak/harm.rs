//! Who is killed, and how.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::procs::{self, Process};

/// A victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The process that runs the function.
    Runtime,
    /// An extension beside it.
    Extension,
    /// Something that one of these started.
    Child,
    /// The first process of a cell.
    Agent,
    /// A process of which runtimes are forked.
    Template,
    /// The process that bears agents.
    Nursery,
}

/// One kind of blow and how often it falls, relative to the others.
struct Blow {
    name: &'static str,
    victim: Victim,
    signal: Signal,
    weight: u64,
}

const fn blow(name: &'static str, victim: Victim, signal: Signal, weight: u64) -> Blow {
    Blow { name, victim, signal, weight }
}

/// Each is struck once, in this order, before chance decides.
const BLOWS: [Blow; 12] = [
    blow("runtime SIGKILL", Victim::Runtime, Signal::SIGKILL, 30),
    blow("extension SIGKILL", Victim::Extension, Signal::SIGKILL, 15),
    blow("agent SIGKILL", Victim::Agent, Signal::SIGKILL, 20),
    blow("runtime SIGSEGV", Victim::Runtime, Signal::SIGSEGV, 10),
    blow("nursery SIGKILL", Victim::Nursery, Signal::SIGKILL, 1),
    blow("template SIGKILL", Victim::Template, Signal::SIGKILL, 2),
    blow("runtime SIGSTOP", Victim::Runtime, Signal::SIGSTOP, 3),
    blow("extension SIGSEGV", Victim::Extension, Signal::SIGSEGV, 5),
    blow("extension SIGSTOP", Victim::Extension, Signal::SIGSTOP, 2),
    blow("child SIGKILL", Victim::Child, Signal::SIGKILL, 8),
    blow("agent SIGSTOP", Victim::Agent, Signal::SIGSTOP, 2),
    blow("runtime SIGTERM", Victim::Runtime, Signal::SIGTERM, 4),
];

/// What an agent calls itself.
const AGENT: &str = "lambent-agent";

/// Longest pause before a blow, so that it falls anywhere in a call.
const PAUSE_MICROS: u64 = 15_000;
/// Blows ordered and not yet struck; beyond it orders are dropped.
const QUEUE: usize = 64;

/// Random numbers that a seed repeats (splitmix64).
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// A factor of one on average, distributed as the pauses between independent arrivals are.
    pub fn exponential(&mut self) -> f64 {
        const STEPS: u32 = 1 << 20;
        let step = u32::try_from(self.below(u64::from(STEPS))).unwrap_or(0);
        -((f64::from(step) + 1.0) / f64::from(STEPS)).ln()
    }

    /// One of them.
    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or(0))
    }
}

/// Blows struck, by name.
pub type Struck = BTreeMap<&'static str, usize>;

/// Strikes a blow whenever it is told to, on a thread of its own.
pub struct Harm {
    orders: SyncSender<()>,
    thread: JoinHandle<Struck>,
}

impl Harm {
    /// Ready to strike processes of this node.
    pub fn to(node: u32, seed: u64) -> Self {
        let (orders, received) = sync_channel(QUEUE);
        let thread = std::thread::spawn(move || strike_all(node, Chance(seed), &received));
        Self { orders, thread }
    }

    /// Who orders blows.
    pub fn orders(&self) -> SyncSender<()> {
        self.orders.clone()
    }

    /// No more of it.
    pub fn end(self) -> Struck {
        drop(self.orders);
        self.thread.join().unwrap_or_default()
    }
}

fn strike_all(node: u32, mut chance: Chance, orders: &Receiver<()>) -> Struck {
    let mut struck = Struck::new();
    while orders.recv().is_ok() {
        #[expect(clippy::disallowed_methods, reason = "the pause is the point: harm comes at any time")]
        std::thread::sleep(Duration::from_micros(chance.below(PAUSE_MICROS)));
        let due = BLOWS.iter().find(|blow| !struck.contains_key(blow.name));
        // Where there is none of the victim's kind just now, another kind of blow falls.
        if due.is_some_and(|blow| strike(node, blow, &mut chance)) {
            *struck.entry(due.map_or("", |blow| blow.name)).or_default() += 1;
            continue;
        }
        let any = any_blow(&mut chance);
        if strike(node, any, &mut chance) {
            *struck.entry(any.name).or_default() += 1;
        }
    }
    struck
}

fn any_blow(chance: &mut Chance) -> &'static Blow {
    let all: u64 = BLOWS.iter().map(|blow| blow.weight).sum();
    let mut left = chance.below(all);
    let [first, ..] = &BLOWS;
    let found = BLOWS.iter().find(|blow| match left.checked_sub(blow.weight) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    found.unwrap_or(first)
}

/// Whether there was a victim.
fn strike(node: u32, blow: &Blow, chance: &mut Chance) -> bool {
    let Some(pid) = chance.pick(&victims(node, blow.victim)).and_then(|pid| i32::try_from(*pid).ok()) else {
        return false;
    };
    // The number was the victim's a moment ago; the kernel hands numbers out in turn, so it is not another's yet.
    kill(Pid::from_raw(pid), blow.signal).is_ok()
}

fn victims(node: u32, kind: Victim) -> Vec<u32> {
    let all = procs::all();
    let children = |of: &[u32]| -> Vec<u32> {
        all.iter().filter(|process: &&Process| of.contains(&process.parent)).map(|process| process.pid).collect()
    };
    let nursery = children(&[node]);
    let born = children(&nursery);
    let is_agent = |pid: &u32| all.iter().any(|process| process.pid == *pid && process.name == AGENT);
    let (agents, templates): (Vec<u32>, Vec<u32>) = born.into_iter().partition(is_agent);
    // What a template was forked into lies below it, not below the agent whose cell it entered.
    let programs: Vec<u32> = children(&agents).into_iter().chain(children(&templates)).collect();
    let extension = |pid: &u32| procs::command(*pid).contains("/opt/extensions/");
    match kind {
        Victim::Nursery => nursery,
        Victim::Agent => agents,
        Victim::Template => templates,
        Victim::Extension => programs.into_iter().filter(extension).collect(),
        Victim::Runtime => programs.into_iter().filter(|pid| !extension(pid)).collect(),
        Victim::Child => children(&programs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_blows_and_all_kinds_fall() {
        let blows = |seed| {
            let mut chance = Chance(seed);
            (0..1000).map(|_| any_blow(&mut chance).name).collect::<Vec<_>>()
        };
        assert_eq!(blows(7), blows(7));
        assert_ne!(blows(7), blows(8));
        assert!(BLOWS.iter().all(|blow| blows(7).contains(&blow.name)));
    }
}
