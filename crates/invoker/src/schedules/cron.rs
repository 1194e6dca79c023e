//! Cron expressions as AWS has them: six fields, minutes hours day-of-month month day-of-week year.
//!
//! | field | values | beside `,` `-` `*` `/` |
//! | --- | --- | --- |
//! | minutes, hours | 0-59, 0-23 | |
//! | day of month | 1-31 | `?`, `L` (the last), `15W` (the weekday nearest to the 15th, within the month) |
//! | month, year | 1-12 or JAN-DEC, 1970-2199 | |
//! | day of week | 1-7 or SUN-SAT | `?`, `L` (Saturday), `6L` (the month's last Friday), `3#2` (its second Tuesday) |
//!
//! One of the two days must be `?`: AWS takes no expression that names both, or neither.

use jiff::civil::{Date, DateTime, Weekday};

/// Civil minutes that an expression means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cron {
    minutes: Set,
    hours: Set,
    days: Days,
    months: Set,
    years: Set,
}

/// Values of one field; each at most 2199.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Set(Vec<i16>);

impl Set {
    fn has(&self, value: i16) -> bool {
        self.0.binary_search(&value).is_ok()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Days {
    OfMonth(Vec<OfMonth>),
    OfWeek(Vec<OfWeek>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OfMonth {
    Any(Set),
    Last,
    /// The weekday nearest to this day.
    Near(i8),
}

/// Days of the week count from Sunday, 1.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OfWeek {
    Any(Set),
    LastOf(i16),
    Nth(i16, i8),
}

/// A field's name, bounds and words; its first word stands for its lowest value.
struct Field {
    name: &'static str,
    least: i16,
    most: i16,
    words: &'static [&'static str],
}

const MINUTES: Field = Field { name: "minutes", least: 0, most: 59, words: &[] };
const HOURS: Field = Field { name: "hours", least: 0, most: 23, words: &[] };
const DAY_OF_MONTH: Field = Field { name: "day-of-month", least: 1, most: 31, words: &[] };
const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    words: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
const DAY_OF_WEEK: Field =
    Field { name: "day-of-week", least: 1, most: 7, words: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] };
const YEAR: Field = Field { name: "year", least: 1970, most: 2199, words: &[] };

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("a cron expression has six fields, not {0}")]
    Fields(usize),
    #[error("{text:?} is no {field}")]
    Value { field: &'static str, text: String },
    #[error("one of day-of-month and day-of-week must be ?, and only one")]
    Days,
}

impl Cron {
    /// Reads what stands within `cron(…)`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minutes, hours, of_month, months, of_week, years] = fields.as_slice() else {
            return Err(Error::Fields(fields.len()));
        };
        let days = match (*of_month, *of_week) {
            ("?", "?") => return Err(Error::Days),
            (days, "?") => Days::OfMonth(each(days, day_of_month)?),
            ("?", days) => Days::OfWeek(each(days, day_of_week)?),
            _ => return Err(Error::Days),
        };
        let (minutes, hours) = (MINUTES.set(minutes)?, HOURS.set(hours)?);
        Ok(Self { minutes, hours, days, months: MONTH.set(months)?, years: YEAR.set(years)? })
    }

    /// Those minutes, in order, from `from` on.
    pub(crate) fn from(&self, from: DateTime) -> impl Iterator<Item = DateTime> {
        let dates = self.years.0.iter().copied().filter(move |year| *year >= from.year()).flat_map(move |year| {
            let months = self.months.0.iter().filter_map(move |month| Date::new(year, *month as i8, 1).ok());
            months.filter(move |first| first.last_of_month() >= from.date()).flat_map(move |first| {
                first.series(jiff::Span::new().days(1)).take(usize::from(first.days_in_month().unsigned_abs()))
            })
        });
        let dates = dates.filter(move |date| *date >= from.date() && self.days.has(*date));
        let times = move |date: Date| {
            let hours = self.hours.0.iter();
            hours.flat_map(move |hour| {
                self.minutes.0.iter().map(move |minute| date.at(*hour as i8, *minute as i8, 0, 0))
            })
        };
        dates.flat_map(times).filter(move |time| *time >= from)
    }
}

impl Days {
    fn has(&self, date: Date) -> bool {
        let number = i16::from(date.weekday().to_sunday_one_offset());
        let is_last_of_week = date.day() + 7 > date.days_in_month();
        match self {
            Self::OfMonth(days) => days.iter().any(|day| match day {
                OfMonth::Any(set) => set.has(i16::from(date.day())),
                OfMonth::Last => date.day() == date.days_in_month(),
                OfMonth::Near(day) => nearest_weekday(date, *day) == Some(date),
            }),
            Self::OfWeek(days) => days.iter().any(|day| match day {
                OfWeek::Any(set) => set.has(number),
                OfWeek::LastOf(day) => *day == number && is_last_of_week,
                OfWeek::Nth(day, nth) => *day == number && (date.day() - 1) / 7 + 1 == *nth,
            }),
        }
    }
}

/// The weekday of the month of `date` that is nearest to `day`; none where the month has no such day.
fn nearest_weekday(date: Date, day: i8) -> Option<Date> {
    let wanted = Date::new(date.year(), date.month(), day).ok()?;
    let days = match wanted.weekday() {
        Weekday::Saturday if day == 1 => 2,
        Weekday::Saturday => -1,
        Weekday::Sunday if day == wanted.days_in_month() => -2,
        Weekday::Sunday => 1,
        _ => 0,
    };
    Date::new(date.year(), date.month(), day + days).ok()
}

fn each<T>(text: &str, one: impl Fn(&str) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    text.split(',').map(one).collect()
}

fn day_of_month(text: &str) -> Result<OfMonth, Error> {
    if text == "L" {
        return Ok(OfMonth::Last);
    }
    match text.strip_suffix('W') {
        Some(day) => DAY_OF_MONTH.value(day).map(|day| OfMonth::Near(day as i8)),
        None => DAY_OF_MONTH.set(text).map(OfMonth::Any),
    }
}

fn day_of_week(text: &str) -> Result<OfWeek, Error> {
    if text.eq_ignore_ascii_case("L") {
        return Ok(OfWeek::Any(Set(vec![7])));
    }
    if let Some((day, nth)) = text.split_once('#') {
        let nth = nth.parse().ok().filter(|nth| (1..=5).contains(nth)).ok_or_else(|| DAY_OF_WEEK.wrong(text))?;
        return Ok(OfWeek::Nth(DAY_OF_WEEK.value(day)?, nth));
    }
    match text.strip_suffix('L') {
        Some(day) => DAY_OF_WEEK.value(day).map(OfWeek::LastOf),
        None => DAY_OF_WEEK.set(text).map(OfWeek::Any),
    }
}

impl Field {
    fn wrong(&self, text: &str) -> Error {
        Error::Value { field: self.name, text: text.to_owned() }
    }

    fn value(&self, text: &str) -> Result<i16, Error> {
        let word = self.words.iter().zip(self.least..).find(|(word, _)| word.eq_ignore_ascii_case(text));
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = word.map(|(_, value)| value).or_else(|| text.parse().ok().filter(|_| is_number));
        value.filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| self.wrong(text))
    }

    /// A list of values, ranges and steps.
    fn set(&self, text: &str) -> Result<Set, Error> {
        let mut values = Vec::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => {
                    let step = step.parse::<u16>().ok().filter(|step| *step > 0).ok_or_else(|| self.wrong(part))?;
                    (range, Some(usize::from(step)))
                }
                None => (part, None),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((first, last)) => (self.value(first)?, self.value(last)?),
                None if step.is_some() => (self.value(range)?, self.most),
                None => (self.value(range)?, self.value(range)?),
            };
            let step = step.unwrap_or(1);
            if first <= last {
                values.extend((first..=last).step_by(step));
            } else {
                // FRI-MON: over the end, and on from the beginning.
                values.extend((first..=self.most).chain(self.least..=last).step_by(step));
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(Set(values))
    }
}

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;
