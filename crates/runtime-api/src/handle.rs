//! The handle through which a container's owner speaks to what runs inside.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::Clock;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::call::{Connect, ExtensionInfo, Identity, InFlight, Init, Invoke, ShutdownReason};
use crate::core::Core;
use crate::event::PlatformEvent;
use crate::server;
use crate::services::Services;
use crate::snapshot::{Sink, Snapshot};
use crate::telemetry::{Hub, Stream};

/// A Runtime API being served. Dropping it ends the server and every connection.
pub struct RuntimeApi {
    core: Arc<Core>,
    /// Holds one task, and aborts it when dropped.
    _server: JoinSet<()>,
}

impl RuntimeApi {
    /// Serves `listener`; `connect` opens connections to telemetry subscribers inside the container, `services` answer its SDKs. Must be called inside a tokio runtime.
    pub fn serve(
        listener: tokio::net::TcpListener,
        identity: Identity,
        connect: Arc<dyn Connect>,
        clock: Arc<dyn Clock>,
        services: Option<Arc<dyn Services>>,
    ) -> RuntimeApi {
        let telemetry = Arc::new(Hub::new(identity.function.logging.format, Arc::clone(&clock), connect));
        let core = Arc::new(Core::new(identity, clock, telemetry, services));
        let mut tasks = JoinSet::new();
        tasks.spawn(server::serve(listener, Arc::clone(&core)));
        RuntimeApi { core, _server: tasks }
    }

    /// Names the external extensions that are being launched, at most [`crate::MAX_EXTENSIONS`]: the init phase lasts until each has
    /// registered and asked for its first event. To be called before the first of them starts, also where there are none.
    pub fn expect_extensions(&self, names: Vec<String>) {
        self.core.expect(names);
    }

    /// Waits for the external extensions to have registered, or for the init phase to have failed: the runtime is started after that, as on
    /// Lambda. The time-out is the caller's.
    pub async fn extensions_registered(&self) -> Init {
        let mut init = self.core.init();
        // The guard must be gone before the next await: it cannot move between threads.
        let waited =
            init.wait_for(|init| init.launched || init.ended.is_some()).await.ok().map(|init| init.ended.clone());
        match waited {
            Some(ended) => ended.unwrap_or(Init::Ready),
            // The sender lives in `self.core`.
            None => std::future::pending().await,
        }
    }

    /// Waits for the init phase to end. The time-out is the caller's.
    pub async fn ready(&self) -> Init {
        let mut init = self.core.init();
        let ended = init.wait_for(|init| init.ended.is_some()).await.ok().and_then(|init| init.ended.clone());
        match ended {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Takes a snapshot of the runtime into a file, of this size at most, when the runtime offers one: once it is initialised. An error of
    /// the receiver means that this was dropped first.
    pub fn keep_snapshot(&self, file: std::fs::File, most: u64) -> oneshot::Receiver<Snapshot> {
        let (sink, outcome) = Sink::new(file, most);
        self.core.keep_snapshot(sink);
        outcome
    }

    /// Hands over an invocation. At most one at a time, and only after [`RuntimeApi::ready`] and the last one's [`InFlight::idle`]:
    /// otherwise it is refused, and all three receivers err at once.
    pub fn invoke(&self, invoke: Invoke) -> InFlight {
        self.core.invoke(invoke)
    }

    /// A line that the function wrote, without its line end, for those who subscribed to `function`.
    pub fn function_line(&self, at: Timestamp, line: Bytes) {
        self.core.telemetry.line(Stream::Function, at, line);
    }

    /// A line that an extension wrote, without its line end, for those who subscribed to `extension`.
    pub fn extension_line(&self, at: Timestamp, line: Bytes) {
        self.core.telemetry.line(Stream::Extension, at, line);
    }

    /// A platform event, for those who subscribed to `platform`. What this crate knows by itself it says by itself:
    /// `platform.extension`, `platform.telemetrySubscription`, `platform.logsDropped`.
    pub fn platform(&self, at: Timestamp, event: &PlatformEvent) {
        self.core.telemetry.platform(at, event);
    }

    /// Sends `SHUTDOWN` to the extensions that registered for it and hands out the telemetry that is queued; returns when all of that is
    /// delivered or at `deadline`, whichever is first. Processes are the caller's to end afterwards. An invocation under way is given up.
    pub async fn shutdown(&self, reason: ShutdownReason, deadline: Timestamp) {
        let mut told = self.core.shutdown(reason, deadline);
        let left = deadline.duration_since(self.core.clock.now()).try_into().unwrap_or_default();
        let delivered = async {
            // The sender lives in `self.core`.
            let _ = told.wait_for(|told| *told).await;
            self.core.telemetry.flush().await;
        };
        // Late is as good as done here: the caller goes on to the signals either way.
        let _ = tokio::time::timeout(left, delivered).await;
    }

    /// Whom it serves.
    pub fn identity(&self) -> &Identity {
        &self.core.identity
    }

    /// The extensions that registered.
    pub fn extensions(&self) -> Vec<ExtensionInfo> {
        self.core.extensions()
    }
}
