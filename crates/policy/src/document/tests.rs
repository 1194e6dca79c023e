#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;

const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:thumb";
const ALICE: Who<'_> = Who::Account { account: "111122223333", arn: "arn:aws:iam::111122223333:user/alice" };

fn document(statement: &str) -> Document {
    serde_json::from_str(&format!(r#"{{"Version":"2012-10-17","Id":"default","Statement":[{statement}]}}"#)).unwrap()
}

fn statement(principal: &str, condition: &str) -> String {
    format!(
        r#"{{"Sid":"s","Effect":"Allow","Principal":{principal},"Action":"lambda:InvokeFunction","Resource":"{ARN}"{condition}}}"#
    )
}

fn decide(document: &Document, who: Who<'_>, context: &[(&str, &str)]) -> Decision {
    document.evaluate(&Request { who, action: "lambda:InvokeFunction", resource: ARN, context })
}

#[test]
fn a_document_reads_and_writes_as_aws_renders_it() {
    let text = concat!(
        r#"{"Version":"2012-10-17","Id":"default","Statement":[{"Sid":"s","Effect":"Allow","Principal":{"Service":"#,
        r#""s3.amazonaws.com"},"Action":"lambda:InvokeFunction","Resource":"arn:aws:lambda:us-east-1:000000000000:"#,
        r#"function:thumb","Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::b"},"StringEquals":"#,
        r#"{"AWS:SourceAccount":"000000000000"}}}]}"#
    );
    let document: Document = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&document).unwrap(), text);
}

#[test]
fn principals() {
    let cases: [(&str, Who<'_>, bool); 12] = [
        (r#""*""#, ALICE, true),
        (r#""*""#, Who::Anonymous, true),
        (r#"{"AWS":"*"}"#, Who::Anonymous, true),
        (r#"{"AWS":"111122223333"}"#, ALICE, true),
        (r#"{"AWS":"arn:aws:iam::111122223333:root"}"#, ALICE, true),
        (r#"{"AWS":["arn:aws:iam::9:root","arn:aws:iam::111122223333:user/alice"]}"#, ALICE, true),
        (r#"{"AWS":"arn:aws:iam::111122223333:user/bob"}"#, ALICE, false),
        (r#"{"AWS":"444455556666"}"#, ALICE, false),
        (r#"{"AWS":"111122223333"}"#, Who::Anonymous, false),
        (r#"{"Service":"s3.amazonaws.com"}"#, Who::Service("s3.amazonaws.com"), true),
        (r#"{"Service":"s3.amazonaws.com"}"#, Who::Service("sns.amazonaws.com"), false),
        (r#"{"AWS":"*"}"#, Who::Service("s3.amazonaws.com"), false),
    ];
    for (principal, who, allowed) in cases {
        let expected = if allowed { Decision::Allow } else { Decision::Silent };
        assert_eq!(decide(&document(&statement(principal, "")), who, &[]), expected, "{principal} {who:?}");
    }
}

#[test]
fn conditions() {
    let url = [("lambda:FunctionUrlAuthType", "NONE")];
    let source = [("aws:SourceArn", "arn:aws:s3:::pictures"), ("aws:SourceAccount", "000000000000")];
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);
    let cases: [Case<'_>; 12] = [
        (r#"{"StringEquals":{"lambda:FunctionUrlAuthType":"NONE"}}"#, &url, true),
        (r#"{"StringEquals":{"lambda:FunctionUrlAuthType":"AWS_IAM"}}"#, &url, false),
        (r#"{"StringEquals":{"lambda:FunctionUrlAuthType":"NONE"}}"#, &[], false),
        (r#"{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::pict*"}}"#, &source, true),
        (r#"{"ArnLike":{"AWS:SourceArn":"arn:*:pictures"}}"#, &source, false),
        (
            r#"{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::x"},"StringEquals":{"AWS:SourceAccount":"000000000000"}}"#,
            &source,
            false,
        ),
        (r#"{"StringEquals":{"AWS:SourceAccount":["1","000000000000"]}}"#, &source, true),
        (r#"{"StringNotEquals":{"aws:SourceAccount":"9"}}"#, &[], true),
        (r#"{"StringEqualsIfExists":{"aws:SourceAccount":"9"}}"#, &[], true),
        (r#"{"StringEqualsIfExists":{"aws:SourceAccount":"9"}}"#, &source, false),
        (r#"{"Bool":{"lambda:InvokedViaFunctionUrl":"true"}}"#, &[("lambda:InvokedViaFunctionUrl", "true")], true),
        (r#"{"DateLessThan":{"aws:CurrentTime":"2030"}}"#, &[], false),
    ];
    for (condition, context, allowed) in cases {
        let document = document(&statement(r#""*""#, &format!(r#","Condition":{condition}"#)));
        let expected = if allowed { Decision::Allow } else { Decision::Silent };
        assert_eq!(decide(&document, ALICE, context), expected, "{condition}");
    }
}

#[test]
fn a_deny_wins_and_one_that_is_not_understood_denies() {
    let allow = statement(r#""*""#, "");
    let deny = allow.replace("Allow", "Deny");
    assert_eq!(decide(&document(&format!("{allow},{deny}")), ALICE, &[]), Decision::Deny);
    let strange = deny.replacen("}", r#","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}"#, 1);
    assert_eq!(decide(&document(&format!("{strange},{allow}")), ALICE, &[]), Decision::Deny);
}

#[test]
fn actions_and_resources_may_have_wildcards() {
    for (pattern, fits) in [("lambda:*", true), ("*", true), ("lambda:invokefunction", true), ("lambda:Get*", false)] {
        let text = statement(r#""*""#, "").replace("lambda:InvokeFunction", pattern);
        assert_eq!(decide(&document(&text), ALICE, &[]) == Decision::Allow, fits, "{pattern}");
    }
    assert!(fits("a*b?d*", "aXXbcd") && fits("*", "") && !fits("a?", "a") && !fits("", "a") && fits("**a", "ba"));
}

#[test]
fn public_is_everybody_without_a_narrowing_condition() {
    assert!(document(&statement(r#""*""#, "")).is_public());
    let url = r#","Condition":{"StringEquals":{"lambda:FunctionUrlAuthType":"NONE"}}"#;
    assert!(document(&statement(r#"{"AWS":"*"}"#, url)).is_public());
    let org = r#","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1"}}"#;
    assert!(!document(&statement(r#""*""#, org)).is_public());
    assert!(!document(&statement(r#"{"AWS":"1"}"#, "")).is_public());
}
