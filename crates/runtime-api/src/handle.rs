//! The handle through which a container's owner speaks to what runs inside.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::Clock;

use crate::call::{Connect, ExtensionInfo, Identity, InFlight, Init, Invoke, ShutdownReason};
use crate::event::PlatformEvent;

/// A Runtime API being served. Dropping it ends the server and every connection.
pub struct RuntimeApi {
    _identity: Arc<Identity>,
}

impl RuntimeApi {
    /// Serves `listener`; `connect` opens connections to telemetry subscribers inside the container. Must be called inside a tokio runtime.
    pub fn serve(
        listener: tokio::net::TcpListener,
        identity: Identity,
        connect: Arc<dyn Connect>,
        clock: Arc<dyn Clock>,
    ) -> RuntimeApi {
        let _ = (listener, connect, clock);
        RuntimeApi { _identity: Arc::new(identity) }
    }

    /// Names the external extensions that are being launched: the init phase lasts until each has registered and asked for its first
    /// event, and only these names may register as external. To be called before the first of them starts.
    pub fn expect_extensions(&self, names: Vec<String>) {
        let _ = names;
    }

    /// Waits for the external extensions to have registered: the runtime is started after that, as on Lambda. The time-out is the caller's.
    pub async fn extensions_registered(&self) -> Init {
        Init::Ready
    }

    /// Waits for the init phase to end. The time-out is the caller's.
    pub async fn ready(&self) -> Init {
        Init::Ready
    }

    /// Hands over an invocation. At most one at a time: the next one only after [`InFlight::idle`].
    pub fn invoke(&self, invoke: Invoke) -> InFlight {
        let (_, response) = tokio::sync::oneshot::channel();
        let (_, idle) = tokio::sync::oneshot::channel();
        let _ = invoke;
        InFlight { response, idle }
    }

    /// A line that the function wrote, for those who subscribed to `function`.
    pub fn function_line(&self, at: Timestamp, line: Bytes) {
        let _ = (at, line);
    }

    /// A line that an extension wrote, for those who subscribed to `extension`.
    pub fn extension_line(&self, at: Timestamp, line: Bytes) {
        let _ = (at, line);
    }

    /// A platform event, for those who subscribed to `platform`.
    pub fn platform(&self, at: Timestamp, event: &PlatformEvent) {
        let _ = (at, event);
    }

    /// Sends `SHUTDOWN` to the extensions that registered for it and flushes telemetry; returns when all of that is delivered or at
    /// `deadline`, whichever is first. Processes are the caller's to end afterwards.
    pub async fn shutdown(&self, reason: ShutdownReason, deadline: Timestamp) {
        let _ = (reason, deadline);
    }

    /// The extensions that registered.
    pub fn extensions(&self) -> Vec<ExtensionInfo> {
        Vec::new()
    }
}
