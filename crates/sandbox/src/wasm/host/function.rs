//! A function that is loaded: its machine code, linked, and the instances that wait to be used again.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use wasmtime::Store;
use wasmtime::component::{Component, ResourceTable};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi_http::WasiHttpCtx;
use wasmtime_wasi_http::p2::bindings::Proxy;

use super::linker::Callee;
use super::outbound::{Allowed, Outbound};
use super::state::{Ctx, Limiter, Output};
use super::{Shared, lock};
use crate::wasm::CALLS;
use crate::wasm::wire::Load;

/// Instances of one function that may wait to be used again; beyond it they are dropped.
const IDLE: usize = 64;
/// The same for all functions together: a part of the pool, so that there is always room for instances that run.
const IDLE_OF_ALL: usize = CALLS / 4;
/// A call that is over within this is quick.
const QUICK: Duration = Duration::from_micros(300);
/// What a quick call adds to a function's score, at most, and what one that is not takes away: one that was only put off by others on the
/// machine changes nothing, a function with one slow call in four is a slow one.
const SCORE: u32 = 12;
const SLOW: u32 = 4;
/// Resources (streams, requests, headers) that a guest may hold at once.
const RESOURCES: usize = 10_000;

/// A loaded function.
pub(super) struct Function {
    pub load: Load,
    pub callee: Callee,
    allowed: Arc<Allowed>,
    idle: Mutex<Vec<Instance>>,
    /// How quick its last calls were.
    score: AtomicU32,
    /// Instances that all functions keep together.
    kept: Arc<AtomicUsize>,
}

impl Drop for Function {
    fn drop(&mut self) {
        self.drop_idle();
    }
}

/// What can be called, in its store.
pub(super) struct Instance {
    pub store: Store<Ctx>,
    pub exports: Exports,
    /// Calls it has served.
    pub calls: u32,
}

/// The exports of an instance.
pub(super) enum Exports {
    Direct(super::linker::Direct),
    Http(Proxy),
}

impl Function {
    /// Maps the machine code, after a look at whether it is what the node wrote.
    pub(super) fn load(shared: &Arc<Shared>, load: &Load) -> Result<Self, String> {
        let path = shared.directory.join(&load.file);
        let bytes = std::fs::read(&path).map_err(|error| format!("the code cannot be read: {error}"))?;
        if hex::encode(digest(&SHA256, &bytes)) != load.sha256 {
            return Err("the code is not what was compiled".to_owned());
        }
        drop(bytes);
        let runtime = shared.runtimes.of(load.flavour).map_err(|error| format!("{error:#}"))?;
        shared.ticker.drives(runtime.engine());
        // SAFETY: the file is this engine's own output, made by the compile program: the node wrote it where only the node can write,
        // and its digest is the one the node took while it came out of the compiler. Nothing that a guest says gets here; and should
        // the compiler itself have been deceived, what it made runs in this cell, which holds nothing but the same account's functions.
        let component = unsafe { Component::deserialize_file(runtime.engine(), &path) };
        let component = component.map_err(|error| format!("{error:#}"))?;
        let callee = runtime.callee(&component).map_err(|error| format!("{error:#}"))?;
        let allowed = Arc::new(Allowed::new(&load.allow));
        let (idle, score, kept) = (Mutex::default(), AtomicU32::new(0), Arc::clone(&shared.idle));
        Ok(Self { load: load.clone(), callee, allowed, idle, score, kept })
    }

    /// Notes how long a call took.
    pub(super) fn took(&self, time: Duration) {
        let score = self.score.load(Ordering::Relaxed);
        let score = if time < QUICK { (score + 1).min(SCORE) } else { score.saturating_sub(SLOW) };
        // Calls that end at once may overwrite each other's; the next ones say it again.
        self.score.store(score, Ordering::Relaxed);
    }

    /// Whether its calls are over in no time, as a rule.
    pub(super) fn is_quick(&self) -> bool {
        self.score.load(Ordering::Relaxed) > SLOW
    }

    /// An instance that waits, if there is one.
    pub(super) fn take(&self) -> Option<Instance> {
        let instance = lock(&self.idle).pop()?;
        self.kept.fetch_sub(1, Ordering::AcqRel);
        Some(instance)
    }

    /// Drops those that wait.
    pub(super) fn drop_idle(&self) {
        let idle = std::mem::take(&mut *lock(&self.idle));
        self.kept.fetch_sub(idle.len(), Ordering::AcqRel);
    }

    /// Keeps an instance that ended a call well, if it may be used again.
    pub(super) fn keep(&self, mut instance: Instance) {
        instance.calls += 1;
        if self.load.reuse.is_some_and(|calls| instance.calls < calls) {
            let mut idle = lock(&self.idle);
            if idle.len() < IDLE && self.kept.load(Ordering::Acquire) < IDLE_OF_ALL {
                self.kept.fetch_add(1, Ordering::AcqRel);
                idle.push(instance);
            }
        }
    }

    /// A store for a new instance.
    pub(super) fn store(&self, shared: &Arc<Shared>) -> wasmtime::Result<Store<Ctx>> {
        let output = Output::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        let mut wasi = WasiCtx::builder();
        wasi.envs(&self.load.env).stdout(output.clone()).stderr(output.clone());
        let ctx = Ctx {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            table,
            outbound: Outbound::new(Arc::clone(shared), Arc::clone(&self.allowed)),
            limiter: Limiter::new(self.load.memory_mib, Arc::clone(&shared.budget)),
            output,
        };
        let engine = match &self.callee {
            Callee::Direct(pre) => pre.engine(),
            Callee::Http(pre) => pre.engine(),
        };
        let mut store = Store::new(engine, ctx);
        store.limiter(|ctx| &mut ctx.limiter);
        // At every tick others get their turn; how long it may run is the timer's business.
        store.epoch_deadline_async_yield_and_update(1);
        Ok(store)
    }

    /// An instance in a store of its own.
    pub(super) async fn instantiate(&self, store: &mut Store<Ctx>) -> wasmtime::Result<Exports> {
        Ok(match &self.callee {
            Callee::Direct(pre) => Exports::Direct(pre.instantiate_async(store).await?),
            Callee::Http(pre) => Exports::Http(pre.instantiate_async(store).await?),
        })
    }
}
