//! External extensions: launched first, told of calls and of the end.

use crate::harness::{Harness, isolated};

/// Registers, and writes each event's type to a file named after the extension.
const FOLLOWER: &str = "#!/bin/bash\n\
    API=http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension\n\
    ID=$(curl -sS -D - -o /dev/null -H \"Lambda-Extension-Name: $(basename $0)\" -d '{\"events\":[\"INVOKE\",\"SHUTDOWN\"]}' $API/register \
    | tr -d '\\r' | sed -n 's/^[Ll]ambda-[Ee]xtension-[Ii]dentifier: //p')\n\
    while true; do\n\
    EVENT=$(curl -sS -H \"Lambda-Extension-Identifier: $ID\" $API/event/next | sed 's/.*\"eventType\":\"\\([A-Z]*\\)\".*/\\1/')\n\
    echo \"$EVENT\" >> FOLLOWED\n\
    [ \"$EVENT\" = SHUTDOWN ] && exit 0\n\
    done\n";

#[tokio::test(flavor = "multi_thread")]
async fn follow_calls_and_the_end() {
    if isolated() {
        return eprintln!("SKIPPED: a cell's files are seen by nobody else");
    }
    let harness = Harness::new().await;
    let Some(mut function) = harness.shell("while true; do next; answer 1; done").await else { return };
    let followed = harness.path().join("followed");
    // In the script, not in the environment: `sim` rewrites paths there.
    let script = FOLLOWER.replace("FOLLOWED", &followed.to_string_lossy());
    function.layers = vec![harness.layer(&[("extensions/follower", &script)]).await];
    for _ in 0..2 {
        assert_eq!(harness.call(&function, "{}").await.body, "1");
    }
    let log = harness.log_until(|log| log.iter().any(|line| line.starts_with("REPORT"))).await;
    assert!(
        log.iter().any(|line| line == "EXTENSION\tName: follower\tState: Ready\tEvents: [INVOKE, SHUTDOWN]"),
        "{log:#?}"
    );
    harness.fleet.retire(function.generation);
    harness.empty().await;
    let _directory = harness.end().await;
    assert_eq!(std::fs::read_to_string(&followed).unwrap(), "INVOKE\nINVOKE\nSHUTDOWN\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_reported_as_such() {
    let harness = Harness::new().await;
    let Some(mut function) = harness.shell("while true; do next; answer 1; done").await else { return };
    function.layers = vec![harness.layer(&[("extensions/broken", "#!/bin/sh\nexit 4\n")]).await];
    let outcome = harness.call(&function, "{}").await;
    assert!(outcome.failed);
    assert!(
        outcome.body.contains(r#""errorType":"Extension.Crash""#) && outcome.body.contains("exit status 4"),
        "{}",
        outcome.body
    );
    harness.end().await;
}
