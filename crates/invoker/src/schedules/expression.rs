//! When a schedule runs: `at(…)`, `rate(…)`, `cron(…)`, and a time zone.
//!
//! As AWS documents it: where clocks go forward, a cron time that does not exist is left out; where they go back, one that exists twice
//! runs once, the first time. A rate is a duration: a day has 24 hours, whatever the clocks do.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::cron::{self, Cron};

/// A schedule expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    /// Once.
    At(DateTime),
    /// Every so often, from its start.
    Rate(SignedDuration),
    /// At these civil times.
    Cron(Cron),
}

/// What is wrong with one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("it is none of at(yyyy-mm-ddThh:mm:ss), rate(value unit) and cron(fields)")]
    Kind,
    #[error("a time is written yyyy-mm-ddThh:mm:ss")]
    At,
    #[error("a rate is a positive number and minute, minutes, hour, hours, day or days")]
    Rate,
    #[error("{0}")]
    Cron(cron::Error),
}

impl Expression {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let within = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(time) = within("at") {
            let has_form = time.len() == 19 && time.as_bytes().get(10) == Some(&b'T');
            return time.parse().ok().filter(|_| has_form).map(Self::At).ok_or(Error::At);
        }
        if let Some(rate) = within("rate") {
            return parse_rate(rate).map(Self::Rate).ok_or(Error::Rate);
        }
        let fields = within("cron").ok_or(Error::Kind)?;
        Cron::parse(fields).map(Self::Cron).map_err(Error::Cron)
    }

    /// The first run after `after`. A single time knows no start; a rate counts from `start`, at which it runs for the first time.
    pub(crate) fn next(&self, zone: &TimeZone, start: Timestamp, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::At(time) => {
                let at = zone.to_ambiguous_timestamp(*time).compatible().ok()?;
                (at > after).then_some(at)
            }
            Self::Rate(period) => {
                if start > after {
                    return Some(start);
                }
                let passed = after.duration_since(start).as_nanos() / period.as_nanos().max(1);
                let whole = i32::try_from(passed + 1).ok()?;
                start.checked_add(period.checked_mul(whole)?).ok()
            }
            Self::Cron(cron) => {
                let from = after.max(start.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(start));
                let candidates = cron.from(zone.to_datetime(from));
                candidates.filter_map(|time| once(zone, time)).find(|at| *at > from)
            }
        }
    }
}

/// The moment of a civil time: the first where there are two, none where there is none.
fn once(zone: &TimeZone, time: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => None,
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.compatible().ok(),
    }
}

fn parse_rate(text: &str) -> Option<SignedDuration> {
    let (value, unit) = text.split_once(' ')?;
    let value: i64 = value.parse().ok().filter(|value| (1..=MOST_RATE).contains(value))?;
    let minutes = match unit {
        "minute" | "minutes" => 1,
        "hour" | "hours" => 60,
        "day" | "days" => 24 * 60,
        _ => return None,
    };
    Some(SignedDuration::from_mins(value.checked_mul(minutes)?))
}

/// Beyond this no rate has a use.
const MOST_RATE: i64 = 1_000_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let (expression, zone) = (Expression::parse(text).unwrap(), TimeZone::get(zone).unwrap());
        let mut after: Timestamp = after.parse().unwrap();
        let start = after;
        let mut found = Vec::new();
        while found.len() < count
            && let Some(next) = expression.next(&zone, start, after)
        {
            found.push(next.to_string());
            after = next;
        }
        found
    }

    #[test]
    fn each_kind_runs_when_it_says() {
        assert_eq!(
            runs("at(2026-11-24T10:00:00)", "Europe/Berlin", "2026-11-24T08:59:59Z", 2),
            ["2026-11-24T09:00:00Z"]
        );
        assert_eq!(runs("at(2026-11-24T10:00:00)", "UTC", "2026-11-24T10:00:00Z", 1), [""; 0]);
        let every = ["2026-01-01T00:05:00Z", "2026-01-01T00:10:00Z"];
        assert_eq!(runs("rate(5 minutes)", "UTC", "2026-01-01T00:00:00Z", 2), every);
        assert_eq!(runs("cron(0 8 * * ? *)", "Asia/Tokyo", "2026-01-01T00:00:00Z", 1), ["2026-01-01T23:00:00Z"]);
    }

    #[test]
    fn a_rate_begins_at_its_start() {
        let rate = Expression::parse("rate(1 hour)").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let next = |after| rate.next(&TimeZone::UTC, at("2026-01-01T00:30:00Z"), at(after)).unwrap().to_string();
        assert_eq!(next("2026-01-01T00:00:00Z"), "2026-01-01T00:30:00Z");
        assert_eq!(next("2026-01-01T00:30:00Z"), "2026-01-01T01:30:00Z");
        assert_eq!(next("2026-01-03T12:00:00Z"), "2026-01-03T12:30:00Z");
    }

    #[test]
    fn a_time_that_does_not_exist_is_left_out_and_one_that_exists_twice_runs_once() {
        // 29 March 2026: 02:00 becomes 03:00 in Berlin; 25 October: 03:00 becomes 02:00.
        let spring = runs("cron(30 2 * * ? *)", "Europe/Berlin", "2026-03-27T12:00:00Z", 2);
        assert_eq!(spring, ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"]);
        let autumn = runs("cron(0/30 2 * * ? *)", "Europe/Berlin", "2026-10-24T12:00:00Z", 3);
        assert_eq!(autumn, ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:00:00Z"]);
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "at()",
            "at(2026-11-24)",
            "at(2026-11-24 10:00:00)",
            "rate(0 minutes)",
            "rate(5)",
            "rate(1 week)",
            "cron(* *)",
            "every(1 day)",
        ] {
            assert!(Expression::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn runs_are_after_and_in_order(
            after in 1_700_000_000_i64..1_900_000_000, minute in 0..60, hour in 0..24,
            zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]),
        ) {
            let zone = TimeZone::get(zone).unwrap();
            let cron = Expression::parse(&format!("cron({minute} {hour} * * ? *)")).unwrap();
            let mut before = Timestamp::from_second(after).unwrap();
            for _ in 0..5 {
                let next = cron.next(&zone, Timestamp::UNIX_EPOCH, before).unwrap();
                let civil = zone.to_datetime(next);
                prop_assert!(next > before);
                prop_assert_eq!((i32::from(civil.hour()), i32::from(civil.minute())), (hour, minute));
                prop_assert!(next.duration_since(before) <= SignedDuration::from_hours(50), "a gap leaves out one day");
                before = next;
            }
        }
    }
}
