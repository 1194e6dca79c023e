//! From a call to a container's task: at once where a container is idle, else after a wait, always a bounded one.
//!
//! ```text
//!  call ──► idle container of the version ─────────────────────────────► container
//!    ├────► its value's container is busy: as long as a hit saves ──────►
//!    ├────► one is about to be free: up to SOON ────────────────────────►
//!    ├────► quick calls crowd: up to CROWD_PATIENCE ────────────────────►
//!    ├────► its turn to start one: until then, or one becomes free ─────►
//!    └────► no room on the node: up to room_patience, ──► refused
//!           until one becomes free or there is room
//! ```

use std::sync::Arc;
use std::time::Duration;

use lambent_model::function::Runtime;
use lambent_model::{ContainerId, FunctionVersion};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::container::{self, Command, Job};
use crate::fleet::Inner;
use crate::placement::{CROWD_PATIENCE, Handle, Lane, Patience, Placement, Purpose, SOON};
use crate::turns::{StartTurn, Starts};
use crate::{Error, Stage};

/// How often a call that waits for room looks for it unasked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Calls that wait for room at once; more are refused at once.
const ROOM_WAITERS: usize = 1_000;

/// How long a starting container counts among those that start at once.
const START_TURN: Duration = Duration::from_secs(1);

/// Containers that start at once: twice the processors, because starting is partly waiting.
fn starts_at_once() -> usize {
    2 * std::thread::available_parallelism().map_or(2, usize::from)
}

/// What bounds the calls that wait.
pub(crate) struct Turns {
    starts: Starts,
    room_waiters: Arc<Semaphore>,
    /// A container became idle or is gone: there may be room.
    pub(crate) room: Arc<Notify>,
}

impl Default for Turns {
    fn default() -> Self {
        let room_waiters = Arc::new(Semaphore::new(ROOM_WAITERS));
        Self { starts: Starts::new(starts_at_once()), room_waiters, room: Arc::default() }
    }
}

/// A call that could not be placed, handed back.
type Refused = (Box<Job>, Error);

impl Inner {
    /// Gives a call to a container. Waits for nothing: what may take time is done by a task.
    pub(crate) fn dispatch(
        self: &Arc<Self>,
        version: &Arc<FunctionVersion>,
        mut job: Box<Job>,
        patience: Patience,
    ) -> Result<(), Refused> {
        if let Err(error) = self.can_run(version) {
            return Err((job, error));
        }
        loop {
            // The lock is free again before the placement is looked at.
            let placement = match job.call.affinity {
                None => self.pool().place(&lane(version, &job), patience),
                Some(value) => self.pool().place_with(&lane(version, &job), value, patience),
            };
            job.stages.end(Stage::Placement);
            let (error, back) = match placement {
                Placement::Warm(handle) => match self.hand_over(version, &handle, job) {
                    Ok(()) => return Ok(()),
                    // It broke since; it tells the pool by itself.
                    Err(back) => {
                        job = back;
                        continue;
                    }
                },
                Placement::Soon(free) => {
                    let waiting = Arc::clone(self).wait_until_free(Arc::clone(version), job, free, SOON);
                    self.tasks.spawn(waiting);
                    return Ok(());
                }
                Placement::Crowd(free) => {
                    let waiting = Arc::clone(self).wait_until_free(Arc::clone(version), job, free, CROWD_PATIENCE);
                    self.tasks.spawn(waiting);
                    return Ok(());
                }
                Placement::Home(free, within) => {
                    let waiting = Arc::clone(self).wait_until_free(Arc::clone(version), job, free, within);
                    self.tasks.spawn(waiting);
                    return Ok(());
                }
                Placement::Fresh => match self.turns.starts.try_acquire() {
                    Some(turn) => return self.start(version, job, turn),
                    None => {
                        let free = self.pool().queue(&lane(version, &job));
                        self.tasks.spawn(Arc::clone(self).wait_for_turn(Arc::clone(version), job, free));
                        return Ok(());
                    }
                },
                Placement::Closed => (Error::ShuttingDown, job),
            };
            return Err((back, error));
        }
    }

    /// A call that waits a moment for a container that is about to be free, or for the one that has its value.
    async fn wait_until_free(
        self: Arc<Self>,
        version: Arc<FunctionVersion>,
        mut job: Box<Job>,
        mut free: oneshot::Receiver<Handle>,
        within: Duration,
    ) {
        let handle = match tokio::time::timeout(within, &mut free).await {
            Ok(handle) => handle.ok(),
            Err(_elapsed) => {
                free.close();
                free.try_recv().ok()
            }
        };
        job.stages.end(Stage::Queue);
        let job = match handle {
            Some(handle) => match self.hand_over(&version, &handle, job) {
                Ok(()) => return,
                Err(job) => job,
            },
            None => job,
        };
        if let Err((job, error)) = self.dispatch(&version, job, Patience::None) {
            job.refuse(error);
        }
    }

    /// A call whose container ended before it began it.
    pub(crate) fn dispatch_again(self: &Arc<Self>, version: &Arc<FunctionVersion>, job: Box<Job>) {
        if let Err((job, error)) = self.dispatch(version, job, Patience::None) {
            job.refuse(error);
        }
    }

    /// A call that waits for its turn to start a container, or for one of its version that becomes free before.
    async fn wait_for_turn(
        self: Arc<Self>,
        version: Arc<FunctionVersion>,
        mut job: Box<Job>,
        mut free: oneshot::Receiver<Handle>,
    ) {
        let (mut handle, mut turn) = (None, None);
        tokio::select! {
            biased;
            Ok(freed) = &mut free => handle = Some(freed),
            granted = self.turns.starts.acquire(version.generation) => turn = Some(granted),
        }
        if handle.is_none() {
            free.close();
            handle = free.try_recv().ok();
        }
        job.stages.end(Stage::Queue);
        let job = match handle {
            Some(handle) => match self.hand_over(&version, &handle, job) {
                Ok(()) => return,
                Err(job) => job,
            },
            None => job,
        };
        let placed = match turn {
            Some(turn) => self.start(&version, job, turn),
            None => self.dispatch(&version, job, Patience::None),
        };
        if let Err((job, error)) = placed {
            job.refuse(error);
        }
    }

    /// Starts a container's task. `turn` is given back when its init phase is over, or has lasted so long that it is not the processor
    /// it waits for.
    fn start(
        self: &Arc<Self>,
        version: &Arc<FunctionVersion>,
        mut job: Box<Job>,
        turn: StartTurn,
    ) -> Result<(), Refused> {
        let place = self.pool().begin(version, &lane(version, &job), Purpose::Call);
        let Some((id, commands)) = place else {
            drop(turn);
            return self.wait_for_room(version, job);
        };
        self.seat(version, &mut job, id);
        let task = container::run(Arc::clone(self), id, Arc::clone(version), job, commands, self.hold(turn));
        self.tasks.spawn(task);
        Ok(())
    }

    /// Lets a call wait for room; refuses it where there will never be any, or too many wait already.
    fn wait_for_room(self: &Arc<Self>, version: &Arc<FunctionVersion>, job: Box<Job>) -> Result<(), Refused> {
        let fits = self.config.max_containers > 0 && u64::from(version.memory_mib) <= self.config.memory_mib;
        let waiter = Arc::clone(&self.turns.room_waiters).try_acquire_owned();
        match waiter {
            Ok(waiter) if fits && !self.pool().is_closed() => {
                self.tasks.spawn(Arc::clone(self).until_room(Arc::clone(version), job, waiter));
                Ok(())
            }
            Ok(_) | Err(_) => Err((job, self.full())),
        }
    }

    /// A call that waits until a container of its version becomes free, or there is room for a new one.
    async fn until_room(
        self: Arc<Self>,
        version: Arc<FunctionVersion>,
        mut job: Box<Job>,
        _waiter: OwnedSemaphorePermit,
    ) {
        let deadline = tokio::time::Instant::now() + self.config.room_patience;
        let lane = lane(&version, &job);
        loop {
            let mut free = self.pool().queue(&lane);
            let turn = async {
                // That the rate of scaling allows another one is told by nobody.
                let _ = tokio::time::timeout(LOOK_EVERY, self.turns.room.notified()).await;
                Some(self.turns.starts.acquire(version.generation).await)
            };
            let (mut handle, mut turn) = tokio::select! {
                biased;
                Ok(freed) = &mut free => (Some(freed), None),
                turn = turn => (None, turn),
                () = tokio::time::sleep_until(deadline) => (None, None),
                () = self.closing.cancelled() => (None, None),
            };
            free.close();
            handle = handle.or_else(|| free.try_recv().ok());
            if let Some(handle) = handle {
                job.stages.end(Stage::Queue);
                match self.hand_over(&version, &handle, job) {
                    Ok(()) => return,
                    Err(back) => job = back,
                }
                continue;
            }
            let Some(turn) = turn.take() else {
                self.pool().tidy(&lane);
                return job.refuse(self.full());
            };
            let place = self.pool().begin(&version, &lane, Purpose::Call);
            if let Some((id, commands)) = place {
                job.stages.end(Stage::Queue);
                self.seat(&version, &mut job, id);
                return container::run(Arc::clone(&self), id, version, job, commands, self.hold(turn)).await;
            }
        }
    }

    /// Starts a container that no call waits for, when its turn has come.
    pub(crate) async fn start_ahead(self: &Arc<Self>, version: Arc<FunctionVersion>) -> Result<(), Error> {
        self.interpreters.ready().await;
        self.can_run(&version)?;
        let turn = self.turns.starts.acquire(version.generation).await;
        let place = self.pool().begin(&version, &Lane::of(&version, None), Purpose::Provisioned);
        let Some((id, commands)) = place else { return Err(self.full()) };
        self.tasks.spawn(container::run_ahead(Arc::clone(self), id, version, commands, self.hold(turn)));
        Ok(())
    }

    /// Gives a call to a container's task; hands it back where that has ended.
    fn hand_over(&self, version: &FunctionVersion, handle: &Handle, mut job: Box<Job>) -> Result<(), Box<Job>> {
        self.seat(version, &mut job, handle.id);
        handle.commands.try_send(Command::Run(job)).map_err(|refused| {
            tracing::debug!(container = %handle.id, "a container ended just before a call came to it");
            match refused.into_inner() {
                Command::Run(job) => job,
                Command::End(_) => unreachable!("what was sent comes back"),
            }
        })
    }

    /// Notes where a call with a value runs.
    fn seat(&self, version: &FunctionVersion, job: &mut Job, id: ContainerId) {
        if let Some(value) = job.call.affinity {
            job.affinity = Some(self.pool().seat(&lane(version, job), value, id));
        }
    }

    fn hold(&self, turn: StartTurn) -> Turn {
        Turn::hold(turn, self.warming.nudge())
    }

    /// Whether instances may be made without taking the processor from calls: no container is being started; `half`: half of the starts
    /// are free.
    pub(crate) fn starts_are_free(&self, half: bool) -> bool {
        let (free, all) = self.turns.starts.free();
        if half { free * 2 >= all } else { free == all }
    }

    fn can_run(&self, version: &FunctionVersion) -> Result<(), Error> {
        match version.runtime {
            Runtime::Provided(_) => Ok(()),
            Runtime::Python { .. } | Runtime::Node { .. } if self.interpreters.of(&version.runtime).is_some() => Ok(()),
            Runtime::Python { .. } | Runtime::Node { .. } | Runtime::Wasm => {
                let found: Vec<String> = self.interpreters.runtimes().iter().map(Runtime::to_string).collect();
                Err(Error::NoRuntime { runtime: version.runtime.to_string(), found: found.join(", ") })
            }
        }
    }

    fn full(&self) -> Error {
        let pool = self.pool();
        if pool.is_closed() {
            return Error::ShuttingDown;
        }
        Error::Full { containers: pool.counted(), memory_mib: pool.memory_mib() }
    }
}

/// One of the few starts at a time. Ends when dropped, and by itself after [`START_TURN`].
pub(crate) struct Turn(#[allow(dead_code, reason = "its drop is what counts")] oneshot::Sender<()>);

impl Turn {
    fn hold(turn: StartTurn, over: Arc<Notify>) -> Self {
        let (dropped, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(START_TURN, ended).await;
            drop(turn);
            over.notify_one();
        });
        Self(dropped)
    }
}

/// Which containers may take a call.
fn lane(version: &FunctionVersion, job: &Job) -> Lane {
    Lane::of(version, job.call.tenant.as_ref())
}
