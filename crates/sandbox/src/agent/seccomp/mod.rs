//! The system calls a cell may make: an allow-list ([`table`]), with a reason for each entry.
//!
//! | call | answer |
//! | --- | --- |
//! | on the list, arguments as the list wants them | done |
//! | on the list, other arguments | `EPERM` |
//! | known to be dangerous or useless inside ([`table::REFUSED`]) | `EPERM`, so that the program's message makes sense |
//! | anything else, calls that do not exist yet among them | `ENOSYS`, as from a kernel that lacks it: C libraries then fall back |
//! | of another architecture's table (32-bit calls) | the process is killed |
//!
//! `clone3` and `io_uring` are in the last but one row on purpose. The flags of `clone3` lie in memory where a filter cannot see them;
//! told `ENOSYS`, every C library uses `clone`, whose flags it can. `io_uring` would make calls that no filter sees.
//!
//! The filter is installed once, in the agent, and inherited by everything in the cell.

mod table;

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use table::{ALLOWED, Entry, REFUSED, When};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// The compiled filter.
pub(crate) struct Filters {
    program: BpfProgram,
}

impl Filters {
    /// Compiles the table.
    pub(crate) fn compile() -> io::Result<Self> {
        let allowed = ALLOWED.iter().map(rule).collect::<Result<BTreeMap<_, _>, _>>().map_err(io::Error::other)?;
        let refused = REFUSED.iter().map(|(number, _)| (*number, Vec::new())).collect();
        let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let enosys = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let mut program = compile(allowed, eperm.clone(), SeccompAction::Allow)?;
        // The last instruction is reached by calls that are not on the first list: they go on to the second instead. Nothing jumps
        // beyond it, and each of the two programs can only fall off its end there.
        program.pop();
        program.extend(compile(refused, enosys, eperm)?);
        Ok(Self { program })
    }

    /// As the kernel takes it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let instruction = |i: &seccompiler::sock_filter| {
            let [code0, code1] = i.code.to_ne_bytes();
            let [k0, k1, k2, k3] = i.k.to_ne_bytes();
            [code0, code1, i.jt, i.jf, k0, k1, k2, k3]
        };
        self.program.iter().flat_map(instruction).collect()
    }

    /// Puts it in force for this process and all it will ever start. Needs no-new-privs.
    pub(crate) fn install(&self) -> io::Result<()> {
        seccompiler::apply_filter(&self.program).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
            other => io::Error::other(other),
        })
    }
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    mismatch: SeccompAction,
    matched: SeccompAction,
) -> io::Result<BpfProgram> {
    let filter = SeccompFilter::new(rules, mismatch, matched, ARCHITECTURE).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

/// An entry as the compiler wants it: no rule means always, several mean any of them.
fn rule(entry: &Entry) -> Result<(i64, Vec<SeccompRule>), seccompiler::BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    let when = |conditions: Vec<(u8, SeccompCmpArgLen, SeccompCmpOp, u64)>| {
        let conditions = conditions
            .into_iter()
            .map(|(argument, length, op, value)| SeccompCondition::new(argument, length, op, value));
        SeccompRule::new(conditions.collect::<Result<_, _>>()?)
    };
    let rules = match entry.when {
        When::Always => Vec::new(),
        When::WithoutFlags(argument, flags) => vec![when(vec![(argument, Qword, SeccompCmpOp::MaskedEq(flags), 0)])?],
        When::OneOf(argument, values) => values
            .iter()
            .map(|value| when(vec![(argument, Dword, SeccompCmpOp::Eq, *value)]))
            .collect::<Result<_, _>>()?,
        When::Sockets(pairs) => pairs
            .iter()
            .map(|(family, protocol)| {
                let mut conditions = vec![(0, Dword, SeccompCmpOp::Eq, *family)];
                conditions.extend(protocol.map(|protocol| (2, Dword, SeccompCmpOp::Eq, protocol)));
                when(conditions)
            })
            .collect::<Result<_, _>>()?,
    };
    Ok((entry.number, rules))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn compiles_within_the_kernels_bound() {
        let filters = Filters::compile().unwrap();
        assert!(filters.program.len() < 4096, "{}", filters.program.len());
    }

    #[test]
    fn every_entry_has_a_reason_and_none_is_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for entry in ALLOWED {
            assert!(entry.reason.len() >= 5, "{}", entry.number);
            assert!(seen.insert(entry.number), "{} is listed twice", entry.number);
        }
        for (number, reason) in REFUSED {
            assert!(reason.len() >= 5, "{number}");
            assert!(seen.insert(*number), "{number} is listed twice");
        }
    }

    #[test]
    fn what_cannot_be_seen_through_is_not_on_the_list() {
        for number in
            [libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register]
        {
            assert!(!ALLOWED.iter().any(|entry| entry.number == number));
            assert!(!REFUSED.iter().any(|(refused, _)| *refused == number), "must be ENOSYS, not EPERM");
        }
    }
}
