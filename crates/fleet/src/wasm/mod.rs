//! WebAssembly functions.
//!
//! ```text
//! prepare: component ─► compile program (its own cell) ─► cache ─► account's host process, loaded
//! call:    Hosts (account ─► host process, version ─► slot) ─► frames ─► answer; log, report, metrics here
//! ```
//!
//! They take no container: a call goes straight to its account's host process, which makes an instance for it in microseconds. What is
//! slow happens when code is deployed: [`Wasm::prepare`] compiles it ([`cache`]), starts the account's host process if there is none, and
//! has it load the code. A call that finds something of this missing (the node was started anew, a host process died or was idle too
//! long) has it done first, from the cache. Only where the cache itself was lost does a call wait for the compiler.
//!
//! Host processes belong to one account each and are never shared ([`hosts`]); one waits for whichever account comes next. A function's
//! own settings are environment variables ([`options`]).

mod cache;
mod call;
mod hosts;
mod options;

use std::sync::Arc;
use std::time::Duration;

use lambent_model::FunctionVersion;
use lambent_sandbox::Sandbox;
use lambent_sandbox::wasm::Host;
use lambent_store::Blobs;
use uuid::Uuid;

use crate::fleet::{ContainerUsage, Inner, WasmHostStatus};
use crate::warming::pressure::Pressure;
use crate::{Error, FleetConfig, PrepareError};
use cache::Cache;
pub(crate) use call::run;
use hosts::{Hosts, Loaded};
use options::Options;

/// What a host process takes before it runs anything, in MiB.
const SPARE_MIB: u64 = 8;

/// Everything of WebAssembly functions.
pub(crate) struct Wasm {
    cache: Cache,
    hosts: Arc<Hosts>,
}

impl Wasm {
    /// Nothing is started before the first function comes.
    pub(crate) async fn new(
        config: &FleetConfig,
        sandbox: Arc<dyn Sandbox>,
        blobs: Arc<dyn Blobs>,
    ) -> Result<Arc<Self>, PrepareError> {
        let program = match &config.wasm.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(|source| PrepareError::Io {
                step: "find the running program",
                path: "/proc/self/exe".into(),
                source,
            })?,
        };
        let directory = config.data_dir.join("wasm");
        let cache =
            Cache::open(&directory, program.clone(), config.code_cache_bytes, Arc::clone(&sandbox), blobs).await?;
        let settings = hosts::Settings {
            program,
            directory: directory.join("hosts"),
            memory_mib: config.wasm.host_memory_mib,
            hosts: config.wasm.hosts,
            idle: config.idle_timeout.max(Duration::from_secs(1)),
            keeps_spare: config.pool.ceiling > 0 && config.pool.memory_mib >= SPARE_MIB,
        };
        Ok(Arc::new(Self { cache, hosts: Hosts::new(settings, sandbox)? }))
    }

    /// Compiles a version and has its account's host process load it.
    pub(crate) async fn prepare(&self, fleet: &Inner, version: &FunctionVersion) -> Result<(), PrepareError> {
        self.cache.of(version, &Options::of(version)).await?;
        // The code is ready; that a host process is, too, is a favour to the first call, which would see to it otherwise.
        if let Err(error) = self.place(fleet, version).await {
            tracing::warn!(function = %version.arn, error = &error as &dyn std::error::Error, "no wasm host could be readied");
        }
        Ok(())
    }

    /// The host process of a version's account, and what it has loaded for it; none where something is still to be done.
    fn ready(&self, version: &FunctionVersion) -> Option<(Arc<Host>, Arc<Loaded>)> {
        self.hosts.ready(&version.arn.account, version.generation)
    }

    /// The same, having done what was to be done.
    async fn place(&self, fleet: &Inner, version: &FunctionVersion) -> Result<(Arc<Host>, Arc<Loaded>), Error> {
        let turn = self.hosts.turn(&version.arn.account)?;
        let _turn = turn.lock().await;
        if let Some(ready) = self.ready(version) {
            return Ok(ready);
        }
        let options = Options::of(version);
        let code = self.cache.of(version, &options).await.map_err(Error::Prepare)?;
        let loaded = Loaded::new(fleet, version);
        let function = options.function(version, &loaded.stream(), code);
        self.hosts.load(version, function, loaded).await
    }

    /// The host processes: accounts' and the spare one.
    pub(crate) fn status(&self) -> Vec<WasmHostStatus> {
        self.hosts.status().into_iter().map(|(status, _)| status).collect()
    }

    /// The same, and what each uses.
    pub(crate) async fn status_with_usage(&self) -> Vec<WasmHostStatus> {
        let mut all = Vec::new();
        for (mut status, host) in self.hosts.status() {
            if let (Ok(usage), Ok(mapped)) = (host.usage().await, host.mapped().await) {
                status.usage = Some(ContainerUsage::of(&usage, &mapped));
            }
            all.push(status);
        }
        all
    }

    /// What the warming pool's memory is short by: the spare host process waits, too.
    pub(crate) fn spare_mib(&self) -> u64 {
        if self.hosts.has_spare() { SPARE_MIB } else { 0 }
    }

    /// The host is short of memory, or it is over. While it is, no spare host process is kept, and those in which nothing runs end one by
    /// one, the longest unused first.
    pub(crate) fn under(&self, pressure: Pressure) {
        self.hosts.under(pressure);
    }

    /// Forgets a version that was replaced or deleted.
    pub(crate) fn retire(&self, generation: Uuid) {
        self.hosts.retire(generation);
    }

    /// The code of a version turned out to be bad: it is compiled anew.
    async fn distrust(&self, version: &FunctionVersion) {
        self.hosts.retire(version.generation);
        self.cache.remove(version, &Options::of(version)).await;
    }

    /// Ends all host processes.
    pub(crate) async fn shutdown(&self) {
        self.hosts.shutdown().await;
    }
}
