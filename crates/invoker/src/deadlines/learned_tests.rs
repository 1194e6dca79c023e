#![allow(clippy::unwrap_used)]

use super::super::sketch::ERROR;
use super::*;

const SECOND: i64 = 1_000_000;

fn arn(name: &str) -> FunctionArn {
    FunctionArn { region: Default::default(), account: Default::default(), name: name.parse().unwrap() }
}

fn site(line: usize, callee: &str) -> Site {
    Site { version: Version::Latest, site: format!("app.py:{line}"), callee: arn(callee) }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn plan(learned: &mut Learned, site: &Site, deadline: Option<i64>) -> Plan {
    let caller = arn("caller");
    learned.plan(Wanted { caller: &caller, site, callee_version: Version::Latest, now: 100 * SECOND, deadline })
}

fn near(found: i64, expected: i64) {
    let off = (found - 100 * SECOND) as f64 / (expected - 100 * SECOND) as f64 - 1.0;
    assert!(off.abs() < 2.0 * ERROR, "{found} is not near {expected}");
}

/// A caller that asks after two seconds for what takes half a second.
fn taught(notes: u64) -> (Learned, Site) {
    let (mut learned, site) = (Learned::new(Options::default()), site(7, "callee"));
    for _ in 0..notes {
        learned.needed(&arn("caller"), &site, millis(2_000));
        learned.ran(&arn("callee"), Version::Latest, millis(500));
    }
    (learned, site)
}

#[test]
fn a_call_is_needed_when_calls_from_there_were() {
    let (mut learned, site) = taught(8);
    let found = plan(&mut learned, &site, None);
    near(found.deadline.unwrap(), 102 * SECOND);
    near(found.latest, 101 * SECOND + SECOND / 2 - SECOND / 100);
    let other = self::site(8, "callee");
    assert_eq!(plan(&mut learned, &other, None), Plan { latest: 100 * SECOND, deadline: None }, "another place");
    let other = Site { version: Version::Published(1.try_into().unwrap()), ..site.clone() };
    assert_eq!(plan(&mut learned, &other, None).deadline, None, "another version");
}

#[test]
fn too_little_known_is_needed_now() {
    let (mut learned, site) = taught(7);
    assert_eq!(plan(&mut learned, &site, None), Plan { latest: 100 * SECOND, deadline: None });
    let explicit = plan(&mut learned, &site, Some(103 * SECOND));
    assert_eq!(explicit, Plan { latest: 100 * SECOND, deadline: Some(103 * SECOND) }, "who knows how long it takes");
}

#[test]
fn what_a_call_says_counts_and_brings_it_ahead_of_nobody() {
    let (mut learned, site) = taught(8);
    near(plan(&mut learned, &site, Some(110 * SECOND)).latest, 109 * SECOND + SECOND / 2);
    for missed in [0, i64::MIN, 100 * SECOND, 100 * SECOND + 1] {
        assert_eq!(plan(&mut learned, &site, Some(missed)).latest, 100 * SECOND);
    }
    assert!(plan(&mut learned, &site, Some(i64::MAX)).latest > 200 * SECOND);
}

#[test]
fn some_needs_that_come_early_are_what_counts() {
    let (mut learned, site) = taught(90);
    (0..10).for_each(|_| learned.needed(&arn("caller"), &site, millis(600)));
    near(plan(&mut learned, &site, None).deadline.unwrap(), 100 * SECOND + 600_000);
}

#[test]
fn what_is_known_is_bounded_and_the_used_stays() {
    let (mut learned, used) = taught(8);
    for line in 0..10 * MOST_OF_FUNCTION {
        learned.needed(&arn("caller"), &site(line + 100, "callee"), millis(1));
        assert!(plan(&mut learned, &used, None).deadline.is_some(), "it is used all the time");
    }
    let count =
        |learned: &Learned, caller: &str| learned.known().iter().filter(|known| *known.function == arn(caller)).count();
    assert!(count(&learned, "caller") <= MOST_OF_FUNCTION);
    for name in 0..2 * MOST {
        learned.ran(&arn(&format!("f{name}")), Version::Latest, millis(1));
        assert!(plan(&mut learned, &used, None).latest > 100 * SECOND, "both of its sketches are used");
    }
    assert!(learned.sketches <= MOST && learned.known().len() == learned.sketches);
    assert_eq!(count(&learned, "caller"), 1, "the sites that nobody uses have gone");
}

#[test]
fn a_deleted_function_is_forgotten_as_caller_and_as_callee() {
    for gone in ["caller", "callee"] {
        let (mut learned, site) = taught(8);
        learned.ran(&arn("other"), Version::Latest, millis(1));
        learned.take_changed(10);
        learned.forget(&arn(gone));
        assert_eq!(plan(&mut learned, &site, None).deadline, None);
        let left = learned.known().len();
        assert_eq!((left, learned.sketches), if gone == "caller" { (2, 2) } else { (1, 1) });
        let changed = learned.take_changed(10);
        assert!(changed.contains(&arn(gone)) && (gone == "caller" || changed.contains(&arn("caller"))));
    }
}

#[test]
fn what_is_kept_reads_back() {
    let (mut learned, site) = taught(20);
    assert_eq!(learned.take_changed(1).len(), 1);
    let rest = learned.take_changed(9);
    assert_eq!(rest.len(), 1);
    assert!(learned.take_changed(9).is_empty());
    learned.still_changed(rest);
    assert_eq!(learned.take_changed(9).len(), 1);
    let mut again = Learned::new(Options::default());
    for name in ["caller", "callee"] {
        let written = serde_json::to_vec(&learned.kept(&arn(name)).unwrap()).unwrap();
        again.restore(arn(name), serde_json::from_slice(&written).unwrap());
    }
    assert_eq!(again.known(), learned.known());
    assert_eq!(plan(&mut again, &site, None), plan(&mut learned, &site, None));
    assert!(again.take_changed(9).is_empty() && again.sketches == 2);
    assert!(learned.kept(&arn("nobody")).is_none());
}
