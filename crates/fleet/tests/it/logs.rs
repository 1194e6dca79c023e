//! What is written where.

use lambent_model::function::{LogFormat, LogLevel};

use crate::harness::Harness;

#[tokio::test(flavor = "multi_thread")]
async fn lines_stand_between_start_and_end() {
    let harness = Harness::new().await;
    let source = "print('importing')\ndef handler(e, c):\n    print('hello', e)\n    return 1\n";
    let Some(function) = harness.python(source).await else { return };
    for n in 0..20 {
        let tail = harness.call(&function, &n.to_string()).await.tail();
        let lines: Vec<&str> = tail.lines().collect();
        assert!(lines[0].starts_with("START RequestId: ") && lines[0].ends_with(" Version: $LATEST"), "{tail}");
        assert_eq!(lines[1], format!("hello {n}"), "{tail}");
        assert!(lines[2].starts_with("END RequestId: ") && lines[3].starts_with("REPORT RequestId: "), "{tail}");
        assert_eq!(lines.len(), 4, "{tail}");
    }
    let log = harness.log_until(|log| log.iter().filter(|line| line.starts_with("REPORT")).count() == 20).await;
    assert!(log[0].starts_with("INIT_START Runtime Version: python:3."), "{}", log[0]);
    assert_eq!(log[1], "importing");
    assert_eq!(log.len(), 2 + 20 * 4);
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_format_keeps_what_the_levels_say() {
    let harness = Harness::new().await;
    let source = "import logging\nlog = logging.getLogger()\ndef handler(e, c):\n    log.info('quiet')\n    log.error('loud')\n    return 1\n";
    let Some(mut function) = harness.python(source).await else { return };
    function.logging.format = LogFormat::Json;
    function.logging.application_level = Some(LogLevel::Warn);
    harness.call(&function, "1").await;
    let log = harness.log_until(|log| log.iter().any(|line| line.contains("platform.report"))).await;
    let types: Vec<String> = log
        .iter()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect(line);
            line["type"].as_str().or(line["message"].as_str()).unwrap_or_default().to_owned()
        })
        .collect();
    assert_eq!(types, ["platform.initStart", "platform.start", "loud", "platform.report"]);
    harness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_slows_the_function_only() {
    let harness = Harness::new().await;
    let Some(function) =
        harness.shell("while true; do next; yes $(printf %0999d 1) | head -c 20000000; answer 1; done").await
    else {
        return;
    };
    let mut quiet = harness.shell("while true; do next; answer 2; done").await.unwrap();
    quiet.logging.group = "/aws/lambda/quiet".to_owned();
    let flood = harness.start(&function, "{}").await.unwrap();
    assert_eq!(harness.call(&quiet, "{}").await.body, "2");
    assert_eq!(crate::harness::finish(flood).await.body, "1");
    harness.end().await;
}
