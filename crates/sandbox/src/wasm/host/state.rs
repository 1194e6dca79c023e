//! What a guest has: its share of the machine, its view of WASI, and where what it writes goes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lambent_model::limits::MIB;
use tokio::io::AsyncWrite;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::outbound::Outbound;
use super::{Window, lock};
use crate::wasm::wire::Kind;

/// Output is sent when this much has come together; the rest goes with the answer.
const FLUSH: usize = 16 << 10;
/// Most that one write may bring.
const WRITE: usize = 64 << 10;

/// The state of a store.
pub(in crate::wasm) struct Ctx {
    pub wasi: WasiCtx,
    pub http: WasiHttpCtx,
    pub table: ResourceTable,
    pub outbound: Outbound,
    pub limiter: Limiter,
    pub output: Output,
}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Ctx {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}

/// The memory of all guests of this process together. The cell's limit lies above it, so that one guest's hunger is refused here, by
/// itself, and does not end the process with all the others.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    pub(super) fn of_mib(mib: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(mib.saturating_mul(usize::try_from(MIB).unwrap_or(usize::MAX)))))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::AcqRel);
    }
}

/// Counts what the memories and tables of one instance hold.
pub(in crate::wasm) struct Limiter {
    limit: usize,
    used: usize,
    budget: Arc<Budget>,
    /// Whether something was ever refused.
    pub refused: bool,
}

impl Limiter {
    pub(super) fn new(limit_mib: u32, budget: Arc<Budget>) -> Self {
        let limit = usize::try_from(u64::from(limit_mib) * MIB).unwrap_or(usize::MAX);
        Self { limit, used: 0, budget, refused: false }
    }

    /// Bytes it holds; memories never shrink, so this is the most it ever held.
    pub(super) fn used(&self) -> u64 {
        self.used as u64
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.used.checked_add(bytes).is_some_and(|sum| sum <= self.limit) && self.budget.take(bytes);
        match fits {
            true => self.used += bytes,
            false => self.refused = true,
        }
        fits
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.budget.give(self.used);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(size_of::<usize>())))
    }
}

/// Where standard output and error of an instance go: to the call it runs.
#[derive(Clone, Default)]
pub(in crate::wasm) struct Output(Arc<Mutex<Sink>>);

#[derive(Default)]
struct Sink {
    window: Option<Arc<Window>>,
    buffer: Vec<u8>,
}

impl Output {
    /// From now on this call's.
    pub(super) fn begin(&self, window: Option<Arc<Window>>) {
        *lock(&self.0) = Sink { window, buffer: Vec::new() };
    }

    /// The call is over: what was not sent yet.
    pub(super) fn end(&self) -> Bytes {
        std::mem::take(&mut *lock(&self.0)).buffer.into()
    }

    /// Whether there is room for more; sends what has come together where that may be sent.
    fn has_room(&self) -> Result<(), Option<Arc<Window>>> {
        let mut sink = lock(&self.0);
        if sink.buffer.len() < FLUSH {
            return Ok(());
        }
        match sink.window.clone() {
            // Between two calls, of which there is no reader: it is dropped.
            None => sink.buffer.clear(),
            Some(window) if window.try_send(Kind::Log, &sink.buffer) => sink.buffer.clear(),
            Some(window) => return Err(Some(window)),
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        while let Err(Some(window)) = self.has_room() {
            window.room().await;
        }
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        lock(&self.0).buffer.extend_from_slice(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.has_room().is_ok() { WRITE } else { 0 })
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Of interfaces that are not offered here (WASI 0.1 and 0.3).
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}
