//! Platform events: what telemetry subscribers are sent, and what platform lines of JSON-format logs contain.
//!
//! Shapes and names are those of <https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html>.

use jiff::Timestamp;
use lambent_model::RequestId;
use lambent_model::clock::rfc3339_millis;
use serde::Serialize;

use crate::call::Lifecycle;

/// One platform event. Serialises to `{"type": …, "record": …}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "record", rename_all_fields = "camelCase")]
pub enum PlatformEvent {
    /// Initialisation began.
    #[serde(rename = "platform.initStart")]
    InitStart {
        /// Why the container was made.
        initialization_type: InitializationType,
        /// Before or inside an invocation.
        phase: InitPhase,
        /// Bare function name.
        function_name: String,
        /// Function version.
        function_version: String,
        /// The container.
        instance_id: String,
        /// Memory of the function in bytes.
        instance_max_memory: u64,
        /// The runtime's identifier.
        #[serde(skip_serializing_if = "Option::is_none")]
        runtime_version: Option<String>,
        /// The runtime's ARN.
        #[serde(skip_serializing_if = "Option::is_none")]
        runtime_version_arn: Option<String>,
    },
    /// The runtime finished its initialisation.
    #[serde(rename = "platform.initRuntimeDone")]
    InitRuntimeDone {
        /// Why the container was made.
        initialization_type: InitializationType,
        /// Before or inside an invocation.
        phase: InitPhase,
        /// How it went.
        status: Status,
        /// What kind of error, when it did not go well.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_type: Option<String>,
    },
    /// How long initialisation took.
    #[serde(rename = "platform.initReport")]
    InitReport {
        /// Why the container was made.
        initialization_type: InitializationType,
        /// Before or inside an invocation.
        phase: InitPhase,
        /// How it went.
        status: Status,
        /// What kind of error, when it did not go well.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_type: Option<String>,
        /// Durations.
        metrics: InitMetrics,
    },
    /// A container is being restored from a snapshot.
    #[serde(rename = "platform.restoreStart")]
    RestoreStart {
        /// Bare function name.
        function_name: String,
        /// Function version.
        function_version: String,
        /// The container.
        instance_id: String,
        /// Memory of the function in bytes.
        instance_max_memory: u64,
        /// The runtime's identifier.
        #[serde(skip_serializing_if = "Option::is_none")]
        runtime_version: Option<String>,
        /// The runtime's ARN.
        #[serde(skip_serializing_if = "Option::is_none")]
        runtime_version_arn: Option<String>,
    },
    /// The runtime is restored, its hooks included.
    #[serde(rename = "platform.restoreRuntimeDone")]
    RestoreRuntimeDone {
        /// How it went.
        status: Status,
        /// What kind of error, when it did not go well.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_type: Option<String>,
    },
    /// How long restoring took.
    #[serde(rename = "platform.restoreReport")]
    RestoreReport {
        /// How it went.
        status: Status,
        /// What kind of error, when it did not go well.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_type: Option<String>,
        /// Durations.
        metrics: RestoreMetrics,
    },
    /// An invocation began.
    #[serde(rename = "platform.start")]
    Start {
        /// The invocation.
        request_id: RequestId,
        /// The function version.
        version: String,
        /// Where it belongs in a trace.
        #[serde(skip_serializing_if = "Option::is_none")]
        tracing: Option<TraceContext>,
    },
    /// The runtime finished an invocation.
    #[serde(rename = "platform.runtimeDone")]
    RuntimeDone {
        /// The invocation.
        request_id: RequestId,
        /// How it went.
        status: Status,
        /// What kind of error, when it did not go well.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_type: Option<String>,
        /// Durations and bytes; absent when the runtime never answered.
        #[serde(skip_serializing_if = "Option::is_none")]
        metrics: Option<RuntimeDoneMetrics>,
        /// Parts of the time.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        spans: Vec<Span>,
        /// Where it belongs in a trace.
        #[serde(skip_serializing_if = "Option::is_none")]
        tracing: Option<TraceContext>,
    },
    /// An invocation in numbers.
    #[serde(rename = "platform.report")]
    Report {
        /// The invocation.
        request_id: RequestId,
        /// How it went.
        status: Status,
        /// What kind of error, when it did not go well.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_type: Option<String>,
        /// The numbers.
        metrics: ReportMetrics,
        /// Where it belongs in a trace.
        #[serde(skip_serializing_if = "Option::is_none")]
        tracing: Option<TraceContext>,
    },
    /// An extension registered or failed.
    #[serde(rename = "platform.extension")]
    Extension {
        /// Its name.
        name: String,
        /// What became of it.
        state: String,
        /// What it registered for.
        events: Vec<Lifecycle>,
        /// What kind of error, when it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_type: Option<String>,
    },
    /// An extension subscribed to telemetry.
    #[serde(rename = "platform.telemetrySubscription")]
    TelemetrySubscription {
        /// The subscriber.
        name: String,
        /// Always `Subscribed`.
        state: String,
        /// The streams it asked for.
        types: Vec<String>,
    },
    /// A subscriber was too slow, and events for it were dropped.
    #[serde(rename = "platform.logsDropped")]
    LogsDropped {
        /// Why.
        reason: String,
        /// How many.
        dropped_records: u64,
        /// How large they were.
        dropped_bytes: u64,
    },
}

impl PlatformEvent {
    /// The line of a JSON-format log that says this: `{"time":…,"type":…,"record":…}`.
    pub fn line(&self, at: Timestamp) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            time: String,
            #[serde(flatten)]
            event: &'a PlatformEvent,
        }
        // Strings, numbers and string-keyed maps always serialise.
        serde_json::to_string(&Line { time: rfc3339_millis(at), event: self }).unwrap_or_default()
    }
}

/// Why a container was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitializationType {
    /// A call needed it.
    OnDemand,
    /// Provisioned concurrency asked for it.
    ProvisionedConcurrency,
    /// Restored from a snapshot.
    SnapStart,
}

/// When initialisation happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitPhase {
    /// In the init phase.
    Init,
    /// Again, inside an invocation, after the init phase failed.
    Invoke,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Well.
    Success,
    /// The function or an extension reported an error.
    Error,
    /// The runtime died.
    Failure,
    /// It took too long.
    Timeout,
}

/// Durations of an initialisation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InitMetrics {
    /// All of it.
    pub duration_ms: f64,
}

/// Durations of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreMetrics {
    /// All of it.
    pub duration_ms: f64,
}

/// Numbers of a runtime's work on an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeDoneMetrics {
    /// From the event's delivery to the end of the response.
    pub duration_ms: f64,
    /// Size of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub produced_bytes: Option<u64>,
}

/// Numbers of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportMetrics {
    /// How long it ran.
    pub duration_ms: f64,
    /// What is billed for.
    pub billed_duration_ms: u64,
    /// Memory of the function.
    #[serde(rename = "memorySizeMB")]
    pub memory_size_mb: u32,
    /// Most memory used so far.
    #[serde(rename = "maxMemoryUsedMB")]
    pub max_memory_used_mb: u32,
    /// How long initialisation took, on a cold start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_duration_ms: Option<f64>,
    /// How long restoring took, on a start from a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_duration_ms: Option<f64>,
    /// What of it is billed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billed_restore_duration_ms: Option<u64>,
    /// How long of its duration it waited for calls of its own, which is not billed for. Not AWS's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_duration_ms: Option<f64>,
}

/// A named part of an invocation's time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// `responseLatency` or `responseDuration`.
    pub name: &'static str,
    /// When it began, as RFC 3339 with milliseconds.
    pub start: String,
    /// How long it took.
    pub duration_ms: f64,
}

/// Where an invocation belongs in a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceContext {
    /// The segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Always `X-Amzn-Trace-Id`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The header's value.
    pub value: String,
}

impl TraceContext {
    /// The context of an `X-Amzn-Trace-Id` header.
    pub fn of_header(value: &str) -> Self {
        let span_id = value.split(';').find_map(|part| part.trim().strip_prefix("Parent=")).map(str::to_owned);
        Self { span_id, kind: "X-Amzn-Trace-Id", value: value.to_owned() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn record(event: &PlatformEvent) -> Value {
        let line: Value =
            serde_json::from_str(&event.line(Timestamp::from_millisecond(1_665_532_875_000).unwrap())).unwrap();
        assert_eq!(line["time"], "2022-10-12T00:01:15.000Z");
        json!([line["type"], line["record"]])
    }

    fn request() -> RequestId {
        "6d68ca91-49c9-448d-89b8-7ca3e6dc66aa".parse().unwrap()
    }

    #[test]
    fn invocations_look_as_the_schema_reference_shows_them() {
        let start = PlatformEvent::Start {
            request_id: request(),
            version: "$LATEST".to_owned(),
            tracing: Some(TraceContext::of_header(
                "Root=1-62e900b2-710d76f009d6e7785905449a;Parent=54565fb41ac79632;Sampled=0",
            )),
        };
        assert_eq!(
            record(&start),
            json!(["platform.start", {
                "requestId": "6d68ca91-49c9-448d-89b8-7ca3e6dc66aa",
                "version": "$LATEST",
                "tracing": {
                    "spanId": "54565fb41ac79632",
                    "type": "X-Amzn-Trace-Id",
                    "value": "Root=1-62e900b2-710d76f009d6e7785905449a;Parent=54565fb41ac79632;Sampled=0",
                },
            }])
        );
        let span = Span { name: "responseLatency", start: "2022-10-12T00:01:15.000Z".to_owned(), duration_ms: 23.02 };
        let done = PlatformEvent::RuntimeDone {
            request_id: request(),
            status: Status::Success,
            error_type: None,
            metrics: Some(RuntimeDoneMetrics { duration_ms: 140.0, produced_bytes: Some(16) }),
            spans: vec![span],
            tracing: None,
        };
        assert_eq!(
            record(&done),
            json!(["platform.runtimeDone", {
                "requestId": "6d68ca91-49c9-448d-89b8-7ca3e6dc66aa",
                "status": "success",
                "metrics": {"durationMs": 140.0, "producedBytes": 16},
                "spans": [{"name": "responseLatency", "start": "2022-10-12T00:01:15.000Z", "durationMs": 23.02}],
            }])
        );
        let report = PlatformEvent::Report {
            request_id: request(),
            status: Status::Error,
            error_type: Some("Runtime.ExitError".to_owned()),
            metrics: ReportMetrics {
                duration_ms: 693.92,
                billed_duration_ms: 694,
                memory_size_mb: 128,
                max_memory_used_mb: 84,
                init_duration_ms: Some(397.68),
                restore_duration_ms: None,
                billed_restore_duration_ms: None,
                waited_duration_ms: None,
            },
            tracing: None,
        };
        assert_eq!(
            record(&report),
            json!(["platform.report", {
                "requestId": "6d68ca91-49c9-448d-89b8-7ca3e6dc66aa",
                "status": "error",
                "errorType": "Runtime.ExitError",
                "metrics": {
                    "durationMs": 693.92,
                    "billedDurationMs": 694,
                    "memorySizeMB": 128,
                    "maxMemoryUsedMB": 84,
                    "initDurationMs": 397.68,
                },
            }])
        );
    }

    #[test]
    fn initialisation_looks_as_the_schema_reference_shows_it() {
        let (initialization_type, phase) = (InitializationType::OnDemand, InitPhase::Init);
        let start = PlatformEvent::InitStart {
            initialization_type,
            phase,
            function_name: "myFunction".to_owned(),
            function_version: "$LATEST".to_owned(),
            instance_id: "82561ce0-53dd-47d1-90e0-c8f5e063e62e".to_owned(),
            instance_max_memory: 256,
            runtime_version: Some("nodejs-14.v3".to_owned()),
            runtime_version_arn: None,
        };
        assert_eq!(
            record(&start),
            json!(["platform.initStart", {
                "initializationType": "on-demand",
                "phase": "init",
                "functionName": "myFunction",
                "functionVersion": "$LATEST",
                "instanceId": "82561ce0-53dd-47d1-90e0-c8f5e063e62e",
                "instanceMaxMemory": 256,
                "runtimeVersion": "nodejs-14.v3",
            }])
        );
        let status = Status::Timeout;
        let error_type = Some("Runtime.Unknown".to_owned());
        let done =
            PlatformEvent::InitRuntimeDone { initialization_type, phase, status, error_type: error_type.clone() };
        assert_eq!(
            record(&done),
            json!(["platform.initRuntimeDone", {
                "initializationType": "on-demand",
                "phase": "init",
                "status": "timeout",
                "errorType": "Runtime.Unknown",
            }])
        );
        let metrics = InitMetrics { duration_ms: 125.33 };
        let report = PlatformEvent::InitReport { initialization_type, phase, status, error_type: None, metrics };
        assert_eq!(record(&report)[1]["metrics"], json!({"durationMs": 125.33}));
        let extension = PlatformEvent::Extension {
            name: "my-extension".to_owned(),
            state: "Ready".to_owned(),
            events: vec![Lifecycle::Invoke, Lifecycle::Shutdown],
            error_type: None,
        };
        assert_eq!(
            record(&extension),
            json!(["platform.extension", {"name": "my-extension", "state": "Ready", "events": ["INVOKE", "SHUTDOWN"]}])
        );
    }
}
