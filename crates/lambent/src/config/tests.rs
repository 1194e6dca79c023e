#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Origin;
use super::*;

fn file(text: &str) -> Option<(PathBuf, toml::Table)> {
    Some((PathBuf::from("lambent.toml"), text.parse().unwrap()))
}

fn flag(key: &str, value: &str) -> Vec<(String, String)> {
    vec![(key.to_owned(), value.to_owned())]
}

fn origin(loaded: &Loaded, key: &str) -> String {
    loaded.effective.iter().find(|effective| effective.key == key).unwrap().origin.to_string()
}

#[test]
fn nothing_is_needed() {
    let loaded = join(None, &[], &[], Use::Serve).unwrap();
    assert_eq!(loaded.config.api.listen.to_string(), "127.0.0.1:9400");
    assert_eq!(loaded.config.urls.listen.to_string(), "127.0.0.1:9401");
    assert_eq!(loaded.config.data_dir, PathBuf::from("/var/lib/lambent"));
    assert!(loaded.effective.iter().all(|effective| effective.origin == Origin::Default));
    let demo = join(None, &[], &[], Use::Demo).unwrap();
    assert_eq!(demo.config.data_dir, PathBuf::from("./.lambent"));
}

#[test]
fn flags_beat_environment_beats_file() {
    let text = "region = 'a'\naccount = '111111111111'\ndata_dir = '/file'\n[shutdown]\ngrace = '1m 5s'";
    let env = [("LAMBENT_REGION", "b"), ("LAMBENT_DATA_DIR", "/env"), ("LAMBENT_FLEET_CONCURRENCY", "7")];
    let loaded = join(file(text), &env, &flag("region", "c"), Use::Serve).unwrap();
    assert_eq!(loaded.config.region.as_str(), "c");
    assert_eq!(loaded.config.data_dir, PathBuf::from("/env"));
    assert_eq!(loaded.config.account.as_str(), "111111111111");
    assert_eq!(loaded.config.shutdown.grace, Duration::from_secs(65));
    assert_eq!(loaded.config.fleet.concurrency, 7);
    assert_eq!(origin(&loaded, "region"), "flag");
    assert_eq!(origin(&loaded, "data_dir"), "$LAMBENT_DATA_DIR");
    assert_eq!(origin(&loaded, "account"), "lambent.toml");
    assert_eq!(origin(&loaded, "api.listen"), "default");
}

#[test]
fn what_is_unknown_is_refused_by_name_and_place() {
    let refused =
        |file, env: [(&str, &str); 1], flags: &[_]| join(file, &env, flags, Use::Serve).unwrap_err().to_string();
    let none = ("HOME", "/root");
    assert_eq!(
        refused(file("[api]\nlisten_on = '127.0.0.1:1'"), [none], &[]),
        r#"unknown key "api.listen_on" in lambent.toml; did you mean "api.listen"?"#
    );
    assert_eq!(
        refused(None, [("LAMBENT_REGON", "x")], &[]),
        r#"unknown key "LAMBENT_REGON" in the environment; did you mean "LAMBENT_REGION"?"#
    );
    assert_eq!(refused(None, [none], &flag("zzzz", "1")), r#"unknown key "zzzz" in --set"#);
    assert!(join(None, &[("LAMBENT_ENDPOINT", "http://x"), ("LAMBENT_TEST_X", "1")], &[], Use::Serve).is_ok());
}

#[test]
fn a_wrong_value_names_its_key_and_source() {
    let refused = |text: &str| join(file(text), &[], &[], Use::Serve).unwrap_err().to_string();
    for (text, start) in [
        ("[api]\nlisten = 'localhost'", r#"api.listen = "localhost" (from lambent.toml) is not usable: "#),
        ("account = '12'", r#"account = "12" (from lambent.toml) is not usable: "#),
        ("[shutdown]\ngrace = 'soon'", r#"shutdown.grace = "soon" (from lambent.toml) is not usable: a duration is"#),
        ("[fleet]\nconcurrency = '7'", r#"fleet.concurrency = "7" (from lambent.toml) is not usable: "#),
    ] {
        let message = refused(text);
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn contradictions_are_refused() {
    for (text, word) in [
        ("[api]\nlisten = '127.0.0.1:9401'", "both 127.0.0.1:9401"),
        ("[fleet]\nconcurrency = 0", "at least 1"),
        ("[aws]\naccess_key_id = 'A'", "belong together"),
        ("[otlp]\nendpoint = 'localhost:4318'", "no URL"),
    ] {
        let message = join(file(text), &[], &[], Use::Serve).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
    assert!(join(file("[api]\nlisten = '0.0.0.0:9400'"), &[], &[], Use::Serve).is_ok());
}

#[test]
fn secrets_are_not_shown() {
    let text = "[aws]\naccess_key_id = 'A'\nsecret_access_key = 'S3CR3T'";
    let loaded = join(file(text), &[], &[], Use::Serve).unwrap();
    assert_eq!(loaded.config.aws.secret_access_key.as_deref(), Some("S3CR3T"));
    assert!(!format!("{:?}", loaded.effective).contains("S3CR3T"));
}
