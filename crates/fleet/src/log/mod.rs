//! What a container writes, on its way to whoever wants it: the log store, the caller's log tail, telemetry subscribers.
//!
//! ```text
//! stdout, stderr, log pipe → pipes (lines, frames) ┐
//!                                                  ├→ ContainerLog → writer (batches) → store::Logs
//! START, END, REPORT, …    → platform              ┘              ├→ tail of the running call (4 KB)
//!                                                                 └→ Runtime API → telemetry subscribers
//! ```
//!
//! Nothing here grows with what a function writes: lines are cut at 256 KiB, and pipes are not read while the writer is behind, so a
//! flood makes the function wait, not the node.

mod lines;
mod pipes;
mod platform;
mod tail;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::FunctionVersion;
use lambent_model::function::{LogFormat, LogLevel, Logging};
use lambent_runtime_api::{PlatformEvent, RuntimeApi};
use lambent_store::port::NewLogEvent;
use uuid::Uuid;

pub(crate) use lines::{Kind, Line, Splitter};
pub(crate) use pipes::{Pipes, Source};
pub(crate) use platform::Platform;
use tail::Tail;
pub(crate) use writer::{LogWriter, start as start_writer};

/// The log of one container: one stream of its function's group.
pub(crate) struct ContainerLog {
    writer: LogWriter,
    logging: Arc<Logging>,
    group: Arc<str>,
    stream: Arc<str>,
    /// The end of the running call's log, where its caller wants it.
    tail: Option<Tail>,
    api: Option<Arc<RuntimeApi>>,
    /// When the last line was written.
    last: Timestamp,
}

impl ContainerLog {
    /// A stream of its own for a container of `function` that starts now.
    pub(crate) fn new(writer: LogWriter, function: &FunctionVersion, now: Timestamp) -> Self {
        let day = now.strftime("%Y/%m/%d");
        let stream = format!("{day}/[{}]{}", function.version, Uuid::new_v4().simple()).into();
        let (logging, group) = (Arc::new(function.logging.clone()), function.logging.group.as_str().into());
        Self { writer, logging, group, stream, tail: None, api: None, last: now }
    }

    /// The stream's name.
    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// The same stream for another call beside this one's.
    pub(crate) fn beside(&self) -> Self {
        let (writer, logging) = (self.writer.clone(), Arc::clone(&self.logging));
        let (group, stream) = (Arc::clone(&self.group), Arc::clone(&self.stream));
        Self { writer, logging, group, stream, tail: None, api: None, last: self.last }
    }

    /// Telemetry goes to the subscribers of `api` from now on.
    pub(crate) fn subscribe(&mut self, api: Option<Arc<RuntimeApi>>) {
        self.api = api;
    }

    /// Keeps the end of what is logged from now on, or no longer.
    pub(crate) fn keep_tail(&mut self, tail: bool) {
        self.tail = tail.then(Tail::default);
    }

    /// What was kept.
    pub(crate) fn take_tail(&mut self) -> Option<Bytes> {
        self.tail.take().map(Tail::into_bytes)
    }

    /// Waits until the writer has caught up enough to take more.
    pub(crate) async fn room(&self) {
        self.writer.room().await;
    }

    /// A waiter of [`ContainerLog::room`] that does not borrow the log.
    pub(crate) fn writer(&self) -> LogWriter {
        self.writer.clone()
    }

    /// A line that the function or an extension wrote.
    pub(crate) fn line(&mut self, source: Source, line: Line, now: Timestamp) {
        let at = in_order(line.at, self.last, now);
        if let Some(api) = &self.api {
            match source {
                Source::Function => api.function_line(at, line.text.clone()),
                Source::Extension => api.extension_line(at, line.text.clone()),
            }
        }
        if self.drops(&line) {
            return;
        }
        self.write(at, String::from_utf8_lossy(&line.text).into_owned());
    }

    /// A platform event, as a line of the function's format.
    pub(crate) fn platform(&mut self, event: &Platform, now: Timestamp) {
        // Of extensions the Runtime API tells its subscribers by itself.
        if let (Some(api), Some(event)) = (&self.api, event.event())
            && !matches!(event, PlatformEvent::Extension { .. })
        {
            api.platform(now, event);
        }
        match self.logging.format {
            LogFormat::Text => {
                if let Some(text) = event.text(now) {
                    self.write(now, text);
                }
            }
            LogFormat::Json => {
                let least = self.logging.system_level.unwrap_or(LogLevel::Info);
                if let Some(line) = event.json(now, least) {
                    self.write(now, line);
                }
            }
        }
    }

    /// Whether the function's level settings drop this line. Only JSON-format functions have any, and only lines that say their level are
    /// judged.
    fn drops(&self, line: &Line) -> bool {
        let (LogFormat::Json, Some(least)) = (self.logging.format, self.logging.application_level) else {
            return false;
        };
        line.level.or_else(|| lines::json_level(&line.text)).is_some_and(|level| level < least)
    }

    fn write(&mut self, at: Timestamp, mut message: String) {
        self.last = self.last.max(at);
        if let Some(tail) = &mut self.tail {
            tail.push(&message);
        }
        // As CloudWatch Logs gets them from Lambda: a line of text keeps the newline that ended it, a record in JSON has none.
        if !message.starts_with('{') {
            message.push('\n');
        }
        let (group, stream) = (Arc::clone(&self.group), Arc::clone(&self.stream));
        self.writer.push(NewLogEvent { group, stream, at, message });
    }
}

/// When a line was written: as its writer says, but not before the line ahead of it, and not in the future. Readers of the log sort by
/// time, and a line of plain text has only the time at which it was read.
fn in_order(said: Option<Timestamp>, last: Timestamp, now: Timestamp) -> Timestamp {
    said.unwrap_or(now).max(last).min(now.max(last))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_order_whatever_time_they_say() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(in_order(None, at(1), at(3)), at(3));
        assert_eq!(in_order(Some(at(2)), at(1), at(3)), at(2));
        assert_eq!(in_order(Some(at(2)), at(3), at(4)), at(3), "it was written after a line read at 3");
        assert_eq!(in_order(Some(at(900)), at(1), at(3)), at(3), "a function cannot write into the future");
        assert_eq!(in_order(None, at(5), at(3)), at(5), "a clock set back does not turn the log around");
    }
}
