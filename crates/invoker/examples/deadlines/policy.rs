//! Who starts next: first come first served, a static priority, the node's own line with what it has learned, and the same with foresight.

use std::collections::VecDeque;
use std::time::Duration;

use lambent_invoker::deadlines::learned::{Learned, Options, Site, Wanted};
use lambent_invoker::deadlines::line::{Capacity, Joining, Line, Room};
use lambent_model::{FunctionArn, Version};

use super::trace::{Call, Micros};

/// Places in the code of one caller that start calls.
const SITES_OF_CALLER: usize = 10;

/// Decides which call starts. Calls are known by their place in the trace.
pub trait Policy {
    /// A call comes.
    fn come(&mut self, now: Micros, id: usize, call: &Call);
    /// Which starts now, with so many places free, and so many taken.
    fn next(&mut self, now: Micros, free: usize, running: usize) -> Option<usize>;
    /// Its result is asked for.
    fn asked(&mut self, _now: Micros, _id: usize, _call: &Call) {}
    /// It is done.
    fn done(&mut self, _id: usize, _call: &Call) {}
    /// When to ask again, though nothing else happens.
    fn wake_at(&self, _now: Micros) -> Option<Micros> {
        None
    }
}

/// In the order of arrival, in one queue or in two.
#[derive(Default)]
pub struct Queues {
    has_priorities: bool,
    queues: [VecDeque<usize>; 2],
}

impl Queues {
    pub fn fifo() -> Self {
        Self::default()
    }

    /// Callers that wait at once first.
    pub fn priority() -> Self {
        Self { has_priorities: true, ..Self::default() }
    }
}

impl Policy for Queues {
    fn come(&mut self, _: Micros, id: usize, call: &Call) {
        let second = self.has_priorities && !call.is_interactive;
        self.queues[usize::from(second)].push_back(id);
    }

    fn next(&mut self, _: Micros, free: usize, _: usize) -> Option<usize> {
        if free == 0 {
            return None;
        }
        self.queues.iter_mut().find_map(VecDeque::pop_front)
    }
}

/// What the line is told of calls.
enum Foresight {
    /// What was learned from earlier ones.
    Learned(Box<Learned>),
    /// The truth.
    Perfect,
}

/// The node's line.
pub struct Lined {
    line: Line,
    foresight: Foresight,
    hold_back_from: usize,
    /// By number of site, of callee, and of site.
    callers: Vec<FunctionArn>,
    callees: Vec<FunctionArn>,
    sites: Vec<Option<Site>>,
}

impl Lined {
    fn new(foresight: Foresight, hold_back_from: usize) -> Self {
        let line = Line::new(u64::MAX);
        Self { line, foresight, hold_back_from, callers: Vec::new(), callees: Vec::new(), sites: Vec::new() }
    }

    pub fn learned(hold_back_from: usize) -> Self {
        Self::new(Foresight::Learned(Box::new(Learned::new(Options::default()))), hold_back_from)
    }

    pub fn perfect(hold_back_from: usize) -> Self {
        Self::new(Foresight::Perfect, hold_back_from)
    }

    fn name(&mut self, call: &Call) -> (FunctionArn, FunctionArn, Site) {
        while self.callers.len() <= call.site {
            self.callers.push(arn(&format!("caller{}", self.callers.len() / SITES_OF_CALLER)));
        }
        while self.callees.len() <= call.callee {
            self.callees.push(arn(&format!("callee{}", self.callees.len())));
        }
        if self.sites.len() <= call.site {
            self.sites.resize(call.site + 1, None);
        }
        let callee = self.callees[call.callee].clone();
        let site = self.sites[call.site].get_or_insert_with(|| Site {
            version: Version::Latest,
            site: format!("app.py:{}", call.site),
            callee: callee.clone(),
        });
        (self.callers[call.site].clone(), callee, site.clone())
    }
}

fn arn(name: &str) -> FunctionArn {
    let name = name.parse().unwrap_or_else(|_| unreachable!("{name} is a name"));
    FunctionArn { region: Default::default(), account: Default::default(), name }
}

fn duration(micros: Micros) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

impl Policy for Lined {
    fn come(&mut self, now: Micros, id: usize, call: &Call) {
        let (caller, callee, site) = self.name(call);
        let latest = match &mut self.foresight {
            Foresight::Learned(learned) => {
                let (caller, callee_version) = (&caller, Version::Latest);
                learned.plan(Wanted { caller, site: &site, callee_version, now, deadline: None }).latest
            }
            Foresight::Perfect => (now + call.need - call.duration).max(now),
        };
        let lane = callee.to_string();
        let joined = self.line.join(Joining { id: id as u64, account: "account", lane: &lane, now, latest });
        assert!(joined.is_ok(), "the line has no bound here");
    }

    fn next(&mut self, now: Micros, free: usize, running: usize) -> Option<usize> {
        let capacity = Capacity { free, is_short: running >= self.hold_back_from };
        self.line.next(now, capacity, |_| Room::Shared).map(|id| id as usize)
    }

    fn asked(&mut self, now: Micros, id: usize, call: &Call) {
        let (caller, _, site) = self.name(call);
        if let Foresight::Learned(learned) = &mut self.foresight {
            learned.needed(&caller, &site, duration(now - call.at));
        }
        self.line.hasten(id as u64, now);
    }

    fn done(&mut self, id: usize, call: &Call) {
        let (_, callee, _) = self.name(call);
        if let Foresight::Learned(learned) = &mut self.foresight {
            learned.ran(&callee, Version::Latest, duration(call.duration));
        }
        self.line.done(id as u64);
    }

    fn wake_at(&self, now: Micros) -> Option<Micros> {
        self.line.wake_at(now)
    }
}
