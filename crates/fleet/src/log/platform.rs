//! Platform lines, in AWS's words: `INIT_START`, `START`, `END`, `REPORT`, … as text, or the same events as JSON.
//!
//! Which events a JSON-format log shows by default, and their levels:
//! <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>.

use std::fmt::Write as _;
use std::time::Duration;

use crate::Stages;
use jiff::Timestamp;
use lambent_model::RequestId;
use lambent_model::clock::rfc3339_millis;
use lambent_model::function::LogLevel;
use lambent_runtime_api::{InitPhase, InitializationType, Lifecycle, PlatformEvent, Status};

/// The level that a platform event has in JSON-format logs.
pub(crate) trait Severity {
    fn severity(&self) -> LogLevel;
}

impl Severity for PlatformEvent {
    fn severity(&self) -> LogLevel {
        let by_status = |status: &Status, well| if *status == Status::Success { well } else { LogLevel::Warn };
        match self {
            Self::InitStart { .. }
            | Self::RestoreStart { .. }
            | Self::Start { .. }
            | Self::TelemetrySubscription { .. } => LogLevel::Info,
            Self::InitRuntimeDone { status, .. } | Self::RuntimeDone { status, .. } => {
                by_status(status, LogLevel::Debug)
            }
            Self::InitReport { status, initialization_type: InitializationType::OnDemand, .. } => {
                by_status(status, LogLevel::Debug)
            }
            Self::RestoreRuntimeDone { status, .. } => by_status(status, LogLevel::Debug),
            Self::InitReport { status, .. } | Self::RestoreReport { status, .. } | Self::Report { status, .. } => {
                by_status(status, LogLevel::Info)
            }
            Self::Extension { error_type, .. } => {
                if error_type.is_none() {
                    LogLevel::Info
                } else {
                    LogLevel::Warn
                }
            }
            Self::LogsDropped { .. } => LogLevel::Warn,
        }
    }
}

/// Something the platform says in a function's log.
#[derive(Debug)]
pub(crate) enum Platform {
    /// An event that AWS shows in JSON-format logs, and some of them as text.
    Event(PlatformEvent),
    /// The report of a call, with its stages where that is asked for.
    Report(PlatformEvent, Option<Stages>),
    /// The end of a call; text only.
    End(RequestId),
    /// A call ran into its time-out; text only.
    TimedOut(RequestId, Duration),
    /// The runtime died; text only.
    Died {
        /// The call it died in.
        request_id: RequestId,
        /// What AWS calls it, e.g. `Runtime exited with error: exit status 1`.
        error: String,
        /// E.g. `Runtime.ExitError`.
        error_type: String,
    },
}

impl Platform {
    /// The event, where it is one.
    pub(crate) fn event(&self) -> Option<&PlatformEvent> {
        match self {
            Self::Event(event) | Self::Report(event, _) => Some(event),
            Self::End(_) | Self::TimedOut(..) | Self::Died { .. } => None,
        }
    }

    /// The line of a JSON-format log, where there is one that `least` lets through.
    pub(crate) fn json(&self, now: Timestamp, least: LogLevel) -> Option<String> {
        let line = self.event().filter(|event| PlatformEvent::severity(event) >= least)?.line(now);
        let Self::Report(_, Some(stages)) = self else { return Some(line) };
        let mut document: serde_json::Value = serde_json::from_str(&line).ok()?;
        let millis = |took: Duration| (took.as_secs_f64() * 1_000_000.0).round() / 1000.0;
        let took = stages.passed().map(|(stage, took)| (stage.name().to_owned(), millis(took).into()));
        if let Some(metrics) = document.pointer_mut("/record/metrics").and_then(serde_json::Value::as_object_mut) {
            metrics.insert("stagesMs".to_owned(), serde_json::Value::Object(took.collect()));
        }
        Some(document.to_string())
    }

    /// The line of a text-format log, where there is one.
    pub(crate) fn text(&self, now: Timestamp) -> Option<String> {
        match self {
            Self::Event(event) => event_text(event, None),
            Self::Report(event, stages) => event_text(event, stages.as_ref()),
            Self::End(request_id) => Some(format!("END RequestId: {request_id}")),
            Self::TimedOut(request_id, timeout) => Some(format!(
                "{} {request_id} Task timed out after {:.2} seconds\n",
                rfc3339_millis(now),
                timeout.as_secs_f64()
            )),
            Self::Died { request_id, error, error_type } => {
                Some(format!("RequestId: {request_id} Error: {error}\n{error_type}"))
            }
        }
    }
}

fn event_text(event: &PlatformEvent, stages: Option<&Stages>) -> Option<String> {
    match event {
        PlatformEvent::InitStart { runtime_version, runtime_version_arn, .. } => {
            let version = runtime_version.as_deref().unwrap_or("none");
            let arn = runtime_version_arn.as_deref().map(|arn| format!("\tRuntime Version ARN: {arn}"));
            Some(format!("INIT_START Runtime Version: {version}{}", arn.unwrap_or_default()))
        }
        PlatformEvent::RestoreStart { runtime_version, runtime_version_arn, .. } => {
            let version = runtime_version.as_deref().unwrap_or("none");
            let arn = runtime_version_arn.as_deref().map(|arn| format!("\tRuntime Version ARN: {arn}"));
            Some(format!("RESTORE_START Runtime Version: {version}{}", arn.unwrap_or_default()))
        }
        PlatformEvent::RestoreReport { status, error_type, metrics } => {
            let mut line = format!("RESTORE_REPORT Restore Duration: {:.2} ms", metrics.duration_ms);
            outcome(&mut line, *status, error_type.as_deref());
            Some(line)
        }
        // Said only where something is wrong; the time of a good one is in the REPORT line.
        PlatformEvent::InitReport { status: Status::Success, .. } => None,
        PlatformEvent::InitReport { phase, status, error_type, metrics, .. } => {
            let phase = match phase {
                InitPhase::Init => "init",
                InitPhase::Invoke => "invoke",
            };
            let mut line = format!("INIT_REPORT Init Duration: {:.2} ms\tPhase: {phase}", metrics.duration_ms);
            outcome(&mut line, *status, error_type.as_deref());
            Some(line)
        }
        PlatformEvent::Start { request_id, version, .. } => {
            Some(format!("START RequestId: {request_id} Version: {version}"))
        }
        PlatformEvent::Report { request_id, status, error_type, metrics, tracing } => {
            let mut line = format!(
                "REPORT RequestId: {request_id}\tDuration: {:.2} ms\tBilled Duration: {} ms\tMemory Size: {} MB\tMax Memory Used: {} MB",
                metrics.duration_ms, metrics.billed_duration_ms, metrics.memory_size_mb, metrics.max_memory_used_mb
            );
            if let Some(init) = metrics.init_duration_ms {
                let _ = write!(line, "\tInit Duration: {init:.2} ms");
            }
            if let (Some(restore), Some(billed)) = (metrics.restore_duration_ms, metrics.billed_restore_duration_ms) {
                let _ = write!(line, "\tRestore Duration: {restore:.2} ms\tBilled Restore Duration: {billed} ms");
            }
            if let Some(waited) = metrics.waited_duration_ms {
                let _ = write!(line, "\tWaited Duration: {waited:.2} ms");
            }
            // A handler that raised ended well as far as the platform is concerned.
            match status {
                Status::Success => {}
                Status::Error | Status::Failure if error_type.as_deref().is_none_or(|kind| !ours(kind)) => {}
                status => outcome(&mut line, *status, error_type.as_deref()),
            }
            if let Some(stages) = stages {
                let _ = write!(line, "\tStages: {}", stages.words());
            }
            line.push('\t');
            if let Some(trace) = tracing {
                trace_line(&mut line, &trace.value);
            }
            Some(line)
        }
        PlatformEvent::Extension { name, state, events, error_type } => {
            let events: Vec<&str> = events
                .iter()
                .map(|event| match event {
                    Lifecycle::Invoke => "INVOKE",
                    Lifecycle::Shutdown => "SHUTDOWN",
                })
                .collect();
            let mut line = format!("EXTENSION\tName: {name}\tState: {state}\tEvents: [{}]", events.join(", "));
            if let Some(error_type) = error_type {
                let _ = write!(line, "\tError Type: {error_type}");
            }
            Some(line)
        }
        PlatformEvent::TelemetrySubscription { name, state, types } => {
            Some(format!("TELEMETRY\tName: {name}\tState: {state}\tTypes: [{}]", types.join(", ")))
        }
        PlatformEvent::InitRuntimeDone { .. }
        | PlatformEvent::RestoreRuntimeDone { .. }
        | PlatformEvent::RuntimeDone { .. }
        | PlatformEvent::LogsDropped { .. } => None,
    }
}

/// Whether an error type is the platform's finding, not the function's own.
fn ours(error_type: &str) -> bool {
    error_type.starts_with("Runtime.") || error_type.starts_with("Extension.") || error_type.starts_with("Sandbox.")
}

fn outcome(line: &mut String, status: Status, error_type: Option<&str>) {
    match status {
        Status::Timeout => line.push_str("\tStatus: timeout"),
        Status::Success => {}
        Status::Error | Status::Failure => {
            line.push_str("\tStatus: error");
            if let Some(error_type) = error_type {
                let _ = write!(line, "\tError Type: {error_type}");
            }
        }
    }
}

/// The second line of a REPORT, for sampled traces: `XRAY TraceId`, `SegmentId`, `Sampled`.
fn trace_line(line: &mut String, header: &str) {
    let part = |name: &str| header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    if part("Sampled") == Some("1")
        && let (Some(root), Some(parent)) = (part("Root"), part("Parent"))
    {
        let _ = write!(line, "\nXRAY TraceId: {root}\tSegmentId: {parent}\tSampled: true\t");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lambent_runtime_api::{InitMetrics, ReportMetrics};

    fn report(status: Status, error_type: Option<&str>) -> String {
        let event = PlatformEvent::Report {
            request_id: uuid::Uuid::nil().into(),
            status,
            error_type: error_type.map(str::to_owned),
            metrics: ReportMetrics {
                duration_ms: 12.345,
                billed_duration_ms: 113,
                memory_size_mb: 128,
                max_memory_used_mb: 36,
                init_duration_ms: Some(100.0),
                restore_duration_ms: None,
                billed_restore_duration_ms: None,
                waited_duration_ms: None,
            },
            tracing: None,
        };
        Platform::Event(event).text(Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn report_lines_are_those_of_aws() {
        let start = "REPORT RequestId: 00000000-0000-0000-0000-000000000000\tDuration: 12.35 ms\tBilled Duration: 113 ms\t\
                     Memory Size: 128 MB\tMax Memory Used: 36 MB\tInit Duration: 100.00 ms\t";
        assert_eq!(report(Status::Success, None), start);
        assert_eq!(report(Status::Error, Some("ValueError")), start);
        assert_eq!(report(Status::Timeout, None), format!("{start}Status: timeout\t"));
        let died = format!("{start}Status: error\tError Type: Runtime.ExitError\t");
        assert_eq!(report(Status::Error, Some("Runtime.ExitError")), died);
    }

    #[test]
    fn stages_stand_behind_what_aws_has_where_they_are_asked_for() {
        let begun = std::time::Instant::now();
        let mut stages = Stages::since(begun);
        stages.end_at(crate::Stage::Handler, begun + Duration::from_micros(1500));
        let metrics = ReportMetrics {
            duration_ms: 1.5,
            billed_duration_ms: 2,
            memory_size_mb: 128,
            max_memory_used_mb: 36,
            init_duration_ms: None,
            restore_duration_ms: None,
            billed_restore_duration_ms: None,
            waited_duration_ms: None,
        };
        let request_id = uuid::Uuid::nil().into();
        let event =
            PlatformEvent::Report { request_id, status: Status::Success, error_type: None, metrics, tracing: None };
        let report = Platform::Report(event, Some(stages));
        let text = report.text(Timestamp::UNIX_EPOCH).unwrap();
        assert!(text.ends_with("Max Memory Used: 36 MB\tStages: handler 1.500 ms\t"), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&report.json(Timestamp::UNIX_EPOCH, LogLevel::Info).unwrap()).unwrap();
        assert_eq!(json["record"]["metrics"]["stagesMs"], serde_json::json!({ "handler": 1.5 }));
        assert_eq!(json["record"]["metrics"]["durationMs"], 1.5);
    }

    #[test]
    fn init_report_lines_are_those_of_aws() {
        let event = PlatformEvent::InitReport {
            initialization_type: InitializationType::OnDemand,
            phase: InitPhase::Init,
            status: Status::Timeout,
            error_type: None,
            metrics: InitMetrics { duration_ms: 9_999.9 },
        };
        let line = Platform::Event(event).text(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(line, "INIT_REPORT Init Duration: 9999.90 ms\tPhase: init\tStatus: timeout");
    }

    #[test]
    fn time_out_lines_are_those_of_aws() {
        let line = Platform::TimedOut(uuid::Uuid::nil().into(), Duration::from_secs(3)).text(Timestamp::UNIX_EPOCH);
        let expected =
            "1970-01-01T00:00:00.000Z 00000000-0000-0000-0000-000000000000 Task timed out after 3.00 seconds\n";
        assert_eq!(line.unwrap(), expected);
    }
}
