//! What a soak found, for people and for machines.

use serde_json::json;

use super::calls::{CLIENTS, Tally};
use super::census::Census;
use super::harm::Struck;

/// Growth of resident memory, from the first quarter to the end, that is no leak: an allocator's own habits.
const GROWTH_KIB: u64 = 12 * 1024;

/// Everything that was seen.
pub struct Findings {
    /// Which soak.
    pub soak: &'static str,
    /// The seed that repeats the run.
    pub seed: u64,
    /// Calls that were to be made under harm.
    pub calls: u64,
    /// How the calls ended.
    pub tally: Tally,
    /// What was struck.
    pub struck: Struck,
    /// Before any harm, at each quarter and at the end; no cell is alive in any of them.
    pub counts: Vec<Census>,
    /// What the end of the node left behind, and what its log says of itself.
    pub after: Vec<String>,
}

impl Findings {
    /// What is wrong; nothing when all is well.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.tally.faults.clone();
        let untold = self.tally.fault_count.saturating_sub(faults.len());
        if untold > 0 {
            faults.push(format!("... and {untold} more"));
        }
        if self.tally.calls() as u64 != self.calls {
            faults.push(format!("{} calls ended of {}", self.tally.calls(), self.calls));
        }
        faults.extend(self.undue_failures());
        if let Some((before, later)) = self.counts.split_first() {
            faults.extend(later.iter().flat_map(|census| census.differences(before)));
            faults.extend(growth(later));
        }
        faults.extend(self.after.iter().cloned());
        faults
    }

    /// One blow fails one call at most, but the nursery's end is that of every container: of those that run and those that start.
    fn undue_failures(&self) -> Option<String> {
        let blows: usize = self.struck.values().sum();
        // A template's end is that of every runtime that is being forked of it.
        let many = |name| self.struck.get(name).copied().unwrap_or(0) * CLIENTS;
        let explained = blows + many("nursery SIGKILL") * 2 + many("template SIGKILL");
        let failed = self.tally.calls().saturating_sub(self.tally.answered());
        (failed > explained).then(|| format!("{failed} calls failed, but {blows} blows explain {explained} at most"))
    }

    /// Prints all of it.
    pub fn print(&self, json: bool) {
        let faults = self.faults();
        if json {
            let line = json!({
                "soak": self.soak,
                "seed": self.seed,
                "calls": self.calls,
                "outcomes": self.tally.outcomes,
                "slowest_ms": u64::try_from(self.tally.slowest().as_millis()).unwrap_or(u64::MAX),
                "blows": self.struck,
                "counts": self.counts,
                "faults": faults,
                "passed": faults.is_empty(),
            });
            println!("{line}");
            return;
        }
        println!("soak {}: {} calls by {CLIENTS} clients, seed {}", self.soak, self.calls, self.seed);
        println!("\n{:28} {:>8}", "OUTCOME", "CALLS");
        self.tally.outcomes.iter().for_each(|(outcome, calls)| println!("{outcome:28} {calls:>8}"));
        println!("{:28} {:>8}", "anything else", self.tally.fault_count);
        println!("slowest answer: {:.1} s", self.tally.slowest().as_secs_f64());
        println!("\n{:28} {:>8}", "BLOW", "STRUCK");
        self.struck.iter().for_each(|(blow, count)| println!("{blow:28} {count:>8}"));
        println!(
            "\n{:>7} {:>6} {:>10} {:>7} {:>8} {:>11} {:>12} {:>8} {:>13} {:>14}",
            "CALLS",
            "CELLS",
            "PROCESSES",
            "MOUNTS",
            "CGROUPS",
            "NAMESPACES",
            "DESCRIPTORS",
            "THREADS",
            "RESIDENT KiB",
            "ANONYMOUS KiB"
        );
        for census in &self.counts {
            let Census {
                calls,
                cells,
                processes,
                mounts,
                cgroups,
                namespaces,
                descriptors,
                threads,
                resident_kib,
                anonymous_kib,
            } = census;
            println!(
                "{calls:>7} {cells:>6} {processes:>10} {mounts:>7} {cgroups:>8} {namespaces:>11} {descriptors:>12} {threads:>8} {resident_kib:>13} {anonymous_kib:>14}"
            );
        }
        println!();
        faults.iter().for_each(|fault| println!("FAULT {fault}"));
        println!(
            "{}",
            if faults.is_empty() { "passed: every call accounted for, nothing left behind" } else { "FAILED" }
        );
    }
}

fn growth(quarters: &[Census]) -> Option<String> {
    let (first, last) = (quarters.first()?, quarters.last()?);
    let grown = last.anonymous_kib.saturating_sub(first.anonymous_kib);
    (grown > GROWTH_KIB).then(|| format!("memory grew by {grown} KiB from call {} to call {}", first.calls, last.calls))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::calls::ANSWERED;
    use super::*;

    fn findings() -> Findings {
        let census = Census { calls: 0, processes: 1, descriptors: 20, anonymous_kib: 1000, ..Census::default() };
        let counts = (0..5).map(|quarter| Census { calls: quarter * 10, ..census.clone() }).collect();
        let outcomes = [(ANSWERED.to_owned(), 37), ("Runtime.ExitError".to_owned(), 3)].into();
        let tally = Tally { outcomes, ..Tally::default() };
        Findings {
            soak: "kills",
            seed: 1,
            calls: 40,
            tally,
            struck: [("runtime SIGKILL", 5)].into(),
            counts,
            after: Vec::new(),
        }
    }

    #[test]
    fn what_is_flat_and_explained_passes() {
        assert_eq!(findings().faults(), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_found() {
        type Spoil = fn(&mut Findings);
        let spoils: [(Spoil, &str); 7] = [
            (|found| found.calls += 1, "40 calls ended of 41"),
            (|found| found.struck.clear(), "3 calls failed"),
            (|found| found.counts.last_mut().unwrap().processes += 1, "2 processes after 40 calls, 1 before"),
            (|found| found.counts.last_mut().unwrap().cgroups += 1, "1 cgroups"),
            (|found| found.counts.last_mut().unwrap().descriptors += 1, "21 descriptors"),
            (|found| found.counts.last_mut().unwrap().anonymous_kib += GROWTH_KIB + 1, "memory grew"),
            (|found| found.after.push("a process is left".to_owned()), "a process is left"),
        ];
        for (spoil, expected) in spoils {
            let mut found = findings();
            spoil(&mut found);
            let faults = found.faults();
            assert!(matches!(faults.as_slice(), [only] if only.contains(expected)), "{expected}: {faults:?}");
        }
    }
}
