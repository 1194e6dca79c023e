//! Time, as a thing that is handed in: subsystems ask a [`Clock`], tests hand them a manual one.

use jiff::Timestamp;

/// Wall-clock time for what users see and what is stored. Durations are measured with a monotonic clock, never with this.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// `2015-03-31T12:00:00.123+0000`, the form of `LastModified` in the Lambda API.
pub fn last_modified(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3f+0000").to_string()
}

/// `2015-03-31T12:00:00.123Z`, the form of telemetry events and JSON log lines.
pub fn rfc3339_millis(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_those_of_aws() {
        let at = Timestamp::from_millisecond(1_427_803_200_123).unwrap();
        assert_eq!(last_modified(at), "2015-03-31T12:00:00.123+0000");
        assert_eq!(rfc3339_millis(at), "2015-03-31T12:00:00.123Z");
    }
}
