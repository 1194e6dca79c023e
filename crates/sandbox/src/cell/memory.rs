//! How much a cell uses, and what happens when that is too much.
//!
//! A function has its memory *and* its `/tmp`, whose pages the kernel charges to the cell all the same. So the kernel's limit is the
//! sum of both, which bounds the harm to the host whatever happens; within it the [`Watch`] keeps memory without `/tmp` to the
//! function's own limit: looked at every [`TICK`], and beyond it the largest process is killed, as the kernel would have done.
//! Where there is no cgroup to be had the watch counts the pages of the cell's processes instead and is the only limit;
//! `barriers()` says so.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::cgroup::freezer::Freezer;
use super::cgroup::{Gauge, Group, Limits};
use super::live::Shared;
use crate::port::{Mapped, Usage};
use crate::procfs;

/// How often cells are looked at. An idle cell costs one small read a tick.
const TICK: Duration = Duration::from_millis(25);

/// The account of one cell.
#[derive(Debug)]
pub(super) struct Memory {
    group: Option<Group>,
    gauge: Option<Gauge>,
    /// The agent's number on the host: the root of the tree that is counted where there is no group.
    agent: u32,
    /// Roots of other trees: forks of templates, whose parents are not in the cell.
    forks: Mutex<Vec<u32>>,
    /// The cell's `/tmp`, to tell its pages from others.
    scratch: Mutex<Option<OwnedFd>>,
    limit_bytes: AtomicU64,
    /// The most that was ever seen charged, all kinds of memory: what is used can only be at a new height when this is.
    charged_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    /// Kills by the watch.
    kills: AtomicU64,
    /// Kills, by whomever, that an exit was explained by.
    claimed: AtomicU64,
}

impl Memory {
    pub(super) fn new(group: Option<Group>, agent: u32, scratch: OwnedFd, memory_mib: u32) -> io::Result<Self> {
        Ok(Self {
            gauge: group.as_ref().map(Group::gauge).transpose()?,
            group,
            agent,
            forks: Mutex::default(),
            scratch: Mutex::new(Some(scratch)),
            limit_bytes: AtomicU64::new(u64::from(memory_mib) << 20),
            charged_bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            kills: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
        })
    }

    /// Counts a fork of a template, and what it starts.
    pub(super) fn add(&self, fork: u32) {
        self.forks.lock().unwrap_or_else(PoisonError::into_inner).push(fork);
    }

    /// It has ended.
    pub(super) fn remove(&self, fork: u32) {
        self.forks.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| *known != fork);
    }

    /// The cell's processes, where there is no group to ask.
    fn trees(&self) -> Vec<u32> {
        let forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut pids: Vec<u32> = forks.into_iter().chain([self.agent]).flat_map(procfs::tree).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    pub(super) fn usage(&self) -> io::Result<Usage> {
        let mut usage = match &self.group {
            Some(group) => {
                let counts = group.counts()?;
                let scratch = self.scratch_bytes();
                Usage {
                    memory_bytes: counts.charged_bytes.saturating_sub(counts.file_bytes).saturating_sub(scratch),
                    memory_peak_bytes: 0,
                    cpu: counts.cpu,
                    oom_kills: counts.oom_kills + self.kills.load(Ordering::Relaxed),
                    processes: counts.processes.saturating_sub(1),
                }
            }
            None => {
                let used = procfs::footprint(&self.trees());
                Usage {
                    memory_bytes: used.memory_bytes,
                    memory_peak_bytes: 0,
                    cpu: used.cpu,
                    oom_kills: self.kills.load(Ordering::Relaxed),
                    processes: used.threads.saturating_sub(1),
                }
            }
        };
        self.peak_bytes.fetch_max(usage.memory_bytes, Ordering::Relaxed);
        // After a kill the peak was the limit, whether or not a tick saw it.
        let least = if usage.oom_kills > 0 { self.limit_bytes.load(Ordering::Relaxed) } else { 0 };
        usage.memory_peak_bytes = self.peak_bytes.load(Ordering::Relaxed).max(least);
        Ok(usage)
    }

    /// What the cell's processes map.
    pub(super) fn mapped(&self) -> io::Result<Mapped> {
        let pids = match &self.group {
            Some(group) => group.pids()?,
            None => self.trees(),
        };
        Ok(procfs::mapped(&pids))
    }

    /// Puts the cell's processes in its freezer. Nothing where there is no group to tell which they are, and then there is no freezer either.
    pub(super) fn admit(&self, freezer: &Freezer) -> io::Result<()> {
        self.group.as_ref().map_or(Ok(()), |group| freezer.admit(group))
    }

    /// What the kernel can give back of the cell's memory while `go_on`; how many bytes.
    pub(super) fn reclaim(&self, go_on: impl Fn() -> bool) -> io::Result<u64> {
        self.group.as_ref().map_or(Ok(0), |group| group.reclaim(go_on))
    }

    /// New limits, for a cell that has become somebody's.
    pub(super) fn limit(&self, limits: Limits, memory_mib: u32) -> io::Result<()> {
        self.limit_bytes.store(u64::from(memory_mib) << 20, Ordering::Relaxed);
        self.group.as_ref().map_or(Ok(()), |group| group.limit(limits))
    }

    pub(super) fn set_milli_cpus(&self, milli_cpus: u32) -> io::Result<()> {
        self.group.as_ref().map_or(Ok(()), |group| group.set_milli_cpus(milli_cpus))
    }

    /// Whether a process that was killed just now was killed for memory: true once for each such kill.
    pub(super) fn claim_kill(&self) -> bool {
        let by_kernel = self.group.as_ref().and_then(|group| group.oom_kills().ok()).unwrap_or(0);
        let all = by_kernel + self.kills.load(Ordering::Relaxed);
        self.claimed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |claimed| (claimed < all).then_some(all))
            .is_ok()
    }

    /// Lets go of the cell's file system, which would otherwise stay for as long as somebody holds the handle.
    pub(super) fn release(&self) {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn scratch_bytes(&self) -> u64 {
        let scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Ok(space)) = scratch.as_ref().map(nix::sys::statfs::fstatfs) else { return 0 };
        let blocks = space.blocks().saturating_sub(space.blocks_free());
        blocks.saturating_mul(u64::try_from(space.block_size()).unwrap_or(0))
    }

    /// One look; blocking for microseconds.
    fn look(&self) -> io::Result<()> {
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        if let Some(gauge) = &self.gauge {
            let charged = gauge.read()?;
            if self.charged_bytes.fetch_max(charged, Ordering::Relaxed) >= charged && charged <= limit {
                return Ok(());
            }
        }
        if self.usage()?.memory_bytes <= limit {
            return Ok(());
        }
        let pids = match &self.group {
            Some(group) => group.pids()?,
            None => self.trees(),
        };
        let size = |pid: &u32| procfs::footprint(&[*pid]).memory_bytes;
        if let Some(pid) = pids.into_iter().filter(|pid| *pid != self.agent).max_by_key(size) {
            self.kills.fetch_add(1, Ordering::Relaxed);
            // The number was the cell's a moment ago; the kernel hands numbers out in turn, so it is not another's yet.
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGKILL)?;
        }
        Ok(())
    }
}

/// Looks at all cells of a node.
#[derive(Default)]
pub(super) struct Watch {
    cells: Mutex<Vec<Weak<Shared>>>,
}

impl Watch {
    /// Starts looking; ends when the last holder of the watch is gone.
    pub(super) fn start() -> Arc<Self> {
        let watch = Arc::new(Self::default());
        tokio::spawn(Self::run(Arc::downgrade(&watch)));
        watch
    }

    pub(super) fn add(&self, cell: &Arc<Shared>) {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(cell));
    }

    async fn run(watch: Weak<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(watch) = watch.upgrade() else { return };
            watch.look();
        }
    }

    fn look(&self) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|cell| cell.strong_count() > 0);
        for cell in cells.iter().filter_map(Weak::upgrade) {
            // A cell that ends at this moment has no files any more; nothing is left to limit.
            let _ = cell.memory.look();
        }
    }
}
