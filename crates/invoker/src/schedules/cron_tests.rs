#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use jiff::ToSpan as _;
use jiff::civil::date;
use proptest::prelude::*;

use super::*;

fn first(text: &str, from: DateTime, count: usize) -> Vec<String> {
    Cron::parse(text).unwrap().from(from).take(count).map(|time| time.strftime("%F %R").to_string()).collect()
}

#[test]
fn expressions_of_awss_documentation_mean_what_it_says() {
    let from = date(2026, 1, 1).at(0, 0, 0, 0);
    for (text, expected) in [
        ("0 10 * * ? *", ["2026-01-01 10:00", "2026-01-02 10:00"]),
        ("15 12 * * ? *", ["2026-01-01 12:15", "2026-01-02 12:15"]),
        ("0 18 ? * MON-FRI *", ["2026-01-01 18:00", "2026-01-02 18:00"]),
        ("0 8 1 * ? *", ["2026-01-01 08:00", "2026-02-01 08:00"]),
        ("0/15 * * * ? *", ["2026-01-01 00:00", "2026-01-01 00:15"]),
        ("0/10 * ? * MON-FRI *", ["2026-01-01 00:00", "2026-01-01 00:10"]),
        ("0/5 8-17 ? * MON-FRI *", ["2026-01-01 08:00", "2026-01-01 08:05"]),
        ("0/30 20-2 ? * MON-FRI *", ["2026-01-01 00:00", "2026-01-01 00:30"]),
        ("15 10 ? * 6L 2026-2028", ["2026-01-30 10:15", "2026-02-27 10:15"]),
        ("15 10 ? * 3#2 *", ["2026-01-13 10:15", "2026-02-10 10:15"]),
        ("0 0 L * ? *", ["2026-01-31 00:00", "2026-02-28 00:00"]),
        ("0 0 ? * L *", ["2026-01-03 00:00", "2026-01-10 00:00"]),
        // 3 January 2026 is a Saturday, 1 February a Sunday, and so is 31 May.
        ("0 0 3W * ? *", ["2026-01-02 00:00", "2026-02-03 00:00"]),
        ("0 0 1W 2,8 ? *", ["2026-02-02 00:00", "2026-08-03 00:00"]),
        ("0 0 31W 5 ? *", ["2026-05-29 00:00", "2027-05-31 00:00"]),
        ("0 0 29 2 ? *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
    ] {
        assert_eq!(first(text, from, 2), expected, "{text}");
    }
    assert_eq!(first("0 0 30 2 ? *", from, 1), [""; 0]);
    assert_eq!(first("0 0 1 1 ? 1999", from, 1), [""; 0]);
}

#[test]
fn what_aws_refuses_is_refused() {
    for text in [
        "* * * * ? ",
        "* * * * * *",
        "* * ? * ? *",
        "0 0 1 * MON *",
        "60 * * * ? *",
        "* 24 * * ? *",
        "* * 0 * ? *",
        "* * 32 * ? *",
        "* * * 13 ? *",
        "* * ? * 8 *",
        "* * ? * 3#6 *",
        "* * * * ? 1969",
        "* * LW * ? *",
        "*/0 * * * ? *",
        "1- * * * ? *",
        "+1 * * * ? *",
        "",
        "x",
    ] {
        assert!(Cron::parse(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in "[0-9A-Za-z*?,/#LW -]{0,40}") {
        if let Ok(cron) = Cron::parse(&text) {
            cron.from(date(2026, 1, 1).at(0, 0, 0, 0)).take(3).for_each(drop);
        }
    }

    /// Beside a check of every minute of some days, one by one.
    #[test]
    fn no_minute_is_missed_or_invented(
        minutes in proptest::collection::vec(0_i16..60, 1..4), hour in 0_i16..24, step in 1_i16..12,
        day in 0_i32..2000, weekday in 1_i16..8,
    ) {
        let listed: Vec<String> = minutes.iter().map(i16::to_string).collect();
        let cron = Cron::parse(&format!("{} {hour}/{step} ? * {weekday} *", listed.join(","))).unwrap();
        let begin = date(2026, 1, 1).at(0, 0, 0, 0) + day.days();
        let end = begin + 8.days();
        let found: Vec<DateTime> = cron.from(begin).take_while(|time| *time < end).collect();
        let wanted: Vec<DateTime> = begin.series(1.minute()).take_while(|time| *time < end).filter(|time| {
            minutes.contains(&i16::from(time.minute()))
                && i16::from(time.hour()) >= hour
                && (i16::from(time.hour()) - hour) % step == 0
                && i16::from(time.weekday().to_sunday_one_offset()) == weekday
        }).collect();
        prop_assert_eq!(found, wanted);
    }
}
