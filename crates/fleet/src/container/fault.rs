//! What can go wrong inside a container, and AWS's words for it: error type, message, document for the caller.

use std::time::Duration;

use bytes::Bytes;
use lambent_model::RequestId;
use lambent_runtime_api::Status;
use lambent_sandbox::ExitStatus;
use serde::Serialize;

use super::state::Why;

/// A failure of the function's own making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call ran longer than it may.
    TimedOut(Duration),
    /// The init phase did.
    InitTimedOut,
    /// The runtime's process ended.
    Exited(ExitStatus),
    /// An extension's process ended.
    ExtensionExited { name: String, status: ExitStatus },
    /// The runtime or an extension said that it cannot start.
    InitError { error_type: Option<String>, body: Bytes },
    /// A `provided` function without a `bootstrap`.
    NoBootstrap,
    /// The runtime's program cannot be executed.
    CannotExecute { path: String, reason: String },
    /// An extension's program cannot be executed.
    CannotLaunch { name: String, reason: String },
    /// The node stopped waiting.
    NodeStops,
}

/// The error document of a failure that the platform found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    error_type: &'a str,
    error_message: &'a str,
}

/// `{"errorType":…,"errorMessage":…}`.
pub(crate) fn document(error_type: &str, error_message: &str) -> Bytes {
    serde_json::to_vec(&Document { error_type, error_message }).unwrap_or_default().into()
}

impl Fault {
    /// AWS's error type.
    pub(crate) fn error_type(&self) -> &str {
        match self {
            Self::TimedOut(_) => "Sandbox.Timedout",
            Self::InitTimedOut => "Sandbox.Timedout",
            Self::Exited(ExitStatus::OutOfMemory) => "Runtime.OutOfMemory",
            Self::Exited(_) => "Runtime.ExitError",
            Self::ExtensionExited { .. } => "Extension.Crash",
            Self::InitError { error_type, .. } => error_type.as_deref().unwrap_or("Runtime.Unknown"),
            Self::NoBootstrap | Self::CannotExecute { .. } => "Runtime.InvalidEntrypoint",
            Self::CannotLaunch { .. } => "Extension.LaunchError",
            Self::NodeStops => "Sandbox.Failure",
        }
    }

    /// How telemetry and REPORT call it.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::TimedOut(_) | Self::InitTimedOut => Status::Timeout,
            Self::InitError { .. } => Status::Error,
            Self::Exited(_)
            | Self::ExtensionExited { .. }
            | Self::NoBootstrap
            | Self::CannotExecute { .. }
            | Self::CannotLaunch { .. }
            | Self::NodeStops => Status::Failure,
        }
    }

    /// What happened, in AWS's words, without the request id.
    pub(crate) fn error(&self) -> String {
        match self {
            Self::TimedOut(after) => format!("Task timed out after {:.2} seconds", after.as_secs_f64()),
            Self::InitTimedOut => "Init timed out".to_owned(),
            Self::Exited(ExitStatus::Code(0)) => "Runtime exited without providing a reason".to_owned(),
            Self::Exited(status) => format!("Runtime exited with error: {}", exit(*status)),
            Self::ExtensionExited { status, .. } => exit(*status),
            Self::InitError { .. } => "Runtime initialization failed".to_owned(),
            Self::NoBootstrap => "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]".to_owned(),
            Self::CannotExecute { path, reason } => format!("fork/exec {path}: {reason}"),
            Self::CannotLaunch { name, reason } => format!("fork/exec /opt/extensions/{name}: {reason}"),
            Self::NodeStops => "The node is shutting down".to_owned(),
        }
    }

    /// What the caller gets.
    pub(crate) fn document(&self, request_id: RequestId) -> Bytes {
        match self {
            Self::InitError { body, .. } if !body.is_empty() => body.clone(),
            _ => document(self.error_type(), &format!("RequestId: {request_id} Error: {}", self.error())),
        }
    }

    /// Why the container ends.
    pub(crate) fn why(&self) -> Why {
        match self {
            Self::TimedOut(_) => Why::TimedOut,
            Self::NodeStops => Why::Shutdown,
            _ => Why::Failed,
        }
    }
}

/// An exit status as Go, in which AWS's sandbox is written, words it.
fn exit(status: ExitStatus) -> String {
    let signal = match status {
        ExitStatus::Code(code) => return format!("exit status {code}"),
        ExitStatus::OutOfMemory => 9,
        ExitStatus::Signal(signal) => signal,
    };
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        31 => "bad system call",
        other => return format!("signal: signal {other}"),
    };
    format!("signal: {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(fault: &Fault) -> String {
        let id = RequestId::from(uuid::Uuid::nil());
        String::from_utf8_lossy(&fault.document(id)).replace("00000000-0000-0000-0000-000000000000", "ID")
    }

    #[test]
    fn documents_are_those_of_aws() {
        for (fault, document) in [
            (
                Fault::TimedOut(Duration::from_secs(3)),
                r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: ID Error: Task timed out after 3.00 seconds"}"#,
            ),
            (
                Fault::Exited(ExitStatus::Code(1)),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ID Error: Runtime exited with error: exit status 1"}"#,
            ),
            (
                Fault::Exited(ExitStatus::Code(0)),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ID Error: Runtime exited without providing a reason"}"#,
            ),
            (
                Fault::Exited(ExitStatus::Signal(11)),
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ID Error: Runtime exited with error: signal: segmentation fault"}"#,
            ),
            (
                Fault::Exited(ExitStatus::OutOfMemory),
                r#"{"errorType":"Runtime.OutOfMemory","errorMessage":"RequestId: ID Error: Runtime exited with error: signal: killed"}"#,
            ),
            (
                Fault::ExtensionExited { name: "ext".to_owned(), status: ExitStatus::Code(1) },
                r#"{"errorType":"Extension.Crash","errorMessage":"RequestId: ID Error: exit status 1"}"#,
            ),
            (Fault::InitError { error_type: None, body: Bytes::from_static(b"{}") }, "{}"),
        ] {
            assert_eq!(shown(&fault), document);
        }
    }
}
