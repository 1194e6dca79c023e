#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use jiff::Timestamp;
use lambent_model::{AccountId, Clock, Region};
use lambent_store::Catalog;
use lambent_store::port::{Change, Document, Write};
use tokio::sync::mpsc;

use super::*;
use crate::keys::{AccessKey, Keys};

/// The key of AWS's published signature test suite.
const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A catalog that holds what it is given; enough for [`Keys`].
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<String, Bytes>>);

#[async_trait::async_trait]
impl Catalog for Shelf {
    async fn get(&self, _: &str) -> Result<Option<Document>, lambent_store::Error> {
        Ok(None)
    }
    async fn list(&self, _: &str) -> Result<Vec<Document>, lambent_store::Error> {
        Ok(Vec::new())
    }
    async fn commit(&self, writes: Vec<Write>) -> Result<u64, lambent_store::Error> {
        let mut shelf = self.0.lock().unwrap();
        shelf.extend(writes.into_iter().filter_map(|write| Some((write.key, write.value?))));
        Ok(1)
    }
    async fn watch(&self, _: &str) -> Result<mpsc::UnboundedReceiver<Change>, lambent_store::Error> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for (key, value) in self.0.lock().unwrap().iter() {
            let _ = sender.send(Change::Put(Document { key: key.clone(), revision: 1, value: value.clone() }));
        }
        let _ = sender.send(Change::Ready);
        Ok(receiver)
    }
}

struct Frozen(Timestamp);

impl Clock for Frozen {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A verifier at the test suite's time, moved by `skew_secs`, that knows the suite's key.
async fn verifier(skew_secs: i64) -> Verifier {
    let shelf = Shelf::default();
    let key = AccessKey {
        id: ID.into(),
        secret: SECRET.into(),
        account: AccountId::default(),
        user: None,
        created_at: at("2015-01-01T00:00:00Z"),
        active: true,
    };
    let inactive = AccessKey { id: "AKIDINACTIVE".into(), active: false, ..key.clone() };
    for key in [key, inactive] {
        let value = Bytes::from(serde_json::to_vec(&key).unwrap());
        shelf.0.lock().unwrap().insert(format!("access-key/{}", key.id), value);
    }
    let keys = Keys::open(Arc::new(shelf)).await.unwrap();
    let now = at("2015-08-30T12:36:00Z") + jiff::SignedDuration::from_secs(skew_secs);
    Verifier::new(keys, Region::default(), Arc::new(Frozen(now)))
}

fn signer(service: &str) -> Signer<'_> {
    let at = at("2015-08-30T12:36:00Z");
    Signer { access_key_id: ID, secret: SECRET, session_token: None, region: "us-east-1", service, at }
}

fn head(method: &str, uri: &str) -> http::request::Parts {
    let request = Request::builder().method(method).uri(format!("https://example.amazonaws.com{uri}")).body(());
    request.unwrap().into_parts().0
}

fn signed(method: &str, uri: &str, body: &[u8]) -> http::request::Parts {
    let mut head = head(method, uri);
    sign(&mut head, body, signer("lambda"));
    head
}

/// Requests of AWS's test suite and of Lambda's API, with the signatures that botocore makes for them (its first is the
/// suite's published one).
#[test]
fn signatures_are_those_of_aws() {
    let arn = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af/invocations";
    for (method, uri, header, body, expected) in [
        ("GET", "/", None, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "GET",
            "/?Param2=value2&Param1=value1",
            None,
            "",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "GET",
            "/?Param1=value2&Param1=Value1",
            None,
            "",
            "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1",
        ),
        ("GET", "/?%E1%88%B4=bar", None, "", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
        (
            "GET",
            "/?-._~0123456789=x&ABC=abc",
            None,
            "",
            "26d2a7e4ad4ff41646d4afaf0631ed9067b76222ef893b669cd1cd58550a05b9",
        ),
        (
            "GET",
            "/example1/example2/../..",
            None,
            "",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        ("GET", "/./example", None, "", "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"),
        ("GET", "//example//", None, "", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"),
        (
            "GET",
            &format!("{arn}?Qualifier=%24LATEST"),
            None,
            "{}",
            "cd3e7608a669642702fcf223f70c0ff853a9879563a45ea6e1d2d45919a6e0c2",
        ),
        (
            "GET",
            "/2015-03-31/functions/f:prod",
            None,
            "",
            "391dc1db0649170a9956e7c73a1344819fdc2a554fad2d69f3e7f1c9154e084e",
        ),
        ("GET", "/example%20space/", None, "", "446b817944c553435b35e813c261ff4e161fff982d1bacdef1c87f6785dd1662"),
        ("POST", "/", Some("value1"), "", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"),
        (
            "POST",
            "/",
            Some("  a   b   c  "),
            "Param1=value1",
            "15cdd36c81876d60d92b6d7e495596143ce48f2ba79e7888f79ce77b4833b555",
        ),
    ] {
        let mut head = head(method, uri);
        if let Some(value) = header {
            head.headers.insert("my-header1", HeaderValue::from_str(value).unwrap());
        }
        sign(&mut head, body.as_bytes(), signer("service"));
        let authorization = head.headers["authorization"].to_str().unwrap().to_owned();
        assert!(authorization.ends_with(&format!("Signature={expected}")), "{method} {uri}: {authorization}");
    }
}

#[tokio::test]
async fn what_is_signed_is_accepted_and_what_is_changed_is_not() {
    let verifier = verifier(0).await;
    let good = signed("POST", "/2015-03-31/functions/f%3Aprod/invocations?Qualifier=%24LATEST", b"{}");
    let principal = verifier.begin(&good, "lambda").unwrap().finish(b"{}").unwrap();
    assert_eq!(principal.arn, "arn:aws:iam::000000000000:root");
    // The wire has the path without authority.
    let mut on_the_wire = good.clone();
    on_the_wire.uri = good.uri.path_and_query().unwrap().as_str().parse().unwrap();
    assert!(verifier.begin(&on_the_wire, "lambda").unwrap().finish(b"{}").is_ok());

    assert!(matches!(verifier.begin(&good, "lambda").unwrap().finish(b"{ }"), Err(Error::Invalid(_))), "other body");
    let mut other = good.clone();
    other.method = Method::PUT;
    assert!(matches!(verifier.begin(&other, "lambda").unwrap().finish(b"{}"), Err(Error::Invalid(_))), "other method");
    let mut other = good.clone();
    other.uri = "/2015-03-31/functions/f%3Aprod/invocations".parse().unwrap();
    let refused = verifier.begin(&other, "lambda").unwrap().finish(b"{}").unwrap_err();
    let text = refused.to_string();
    assert!(text.starts_with("The request signature we calculated does not match the signature you provided."));
    assert!(
        text.contains(
            "The Canonical String for this request should have been\n'POST\n/2015-03-31/functions/f%253Aprod/"
        )
    );
    let mut other = good.clone();
    other.headers.insert("host", HeaderValue::from_static("elsewhere"));
    assert!(verifier.begin(&other, "lambda").unwrap().finish(b"{}").is_err(), "other host");
}

#[tokio::test]
async fn a_declared_digest_is_checked_before_and_after_the_body() {
    let verifier = verifier(0).await;
    let mut declared = head("POST", "/");
    let digest = sha256_hex(b"body");
    declared.headers.insert("x-amz-content-sha256", HeaderValue::from_str(&digest).unwrap());
    sign(&mut declared, b"", signer("lambda"));
    assert!(verifier.begin(&declared, "lambda").unwrap().finish(b"body").is_ok());
    assert!(verifier.begin(&declared, "lambda").unwrap().finish(b"other").is_err());
    declared.method = Method::PUT;
    assert!(verifier.begin(&declared, "lambda").is_err(), "judged without the body");

    let mut unsigned = head("POST", "/");
    unsigned.headers.insert("x-amz-content-sha256", HeaderValue::from_static(UNSIGNED_PAYLOAD));
    sign(&mut unsigned, b"", signer("lambda"));
    assert!(verifier.begin(&unsigned, "lambda").unwrap().finish(b"anything").is_ok());
}

#[tokio::test]
async fn presigned_requests_live_as_long_as_they_say() {
    let mut head = head("GET", "/2015-03-31/functions?MaxItems=3");
    presign(&mut head, b"", signer("lambda"), 600);
    for (age, good) in [(0, true), (599, true), (601, false), (-290, true), (-310, false)] {
        let judged = verifier(age).await.begin(&head, "lambda").and_then(|pending| pending.finish(b""));
        assert_eq!(judged.is_ok(), good, "{age}: {judged:?}");
    }
    let longer = head.uri.to_string().replace("Expires=600", "Expires=9000");
    head.uri = longer.parse().unwrap();
    assert!(verifier(601).await.begin(&head, "lambda").unwrap().finish(b"").is_err());
    head.uri = longer.replace("Expires=9000", "Expires=604801").parse().unwrap();
    assert!(matches!(verifier(0).await.begin(&head, "lambda").map(drop), Err(Error::Incomplete(_))));
}

#[tokio::test]
async fn a_presigned_request_as_botocore_makes_it() {
    let mut head = head("GET", "/2015-03-31/functions?MaxItems=3");
    presign(&mut head, b"", signer("service"), 60);
    let expected = "X-Amz-Signature=c641dcd5a5e1ef5cb4dfd49df409c3e45aa943937231a38ebbcc4e031dd5a59a";
    assert!(head.uri.to_string().ends_with(expected), "{}", head.uri);
}

#[tokio::test]
async fn refusals_are_those_of_aws() {
    let plain = head("GET", "/");
    let authorized = |value: &str| {
        let mut head = signed("GET", "/", b"");
        head.headers.insert("authorization", HeaderValue::from_str(value).unwrap());
        head
    };
    let credential = |text: &str| {
        authorized(&format!("AWS4-HMAC-SHA256 Credential={text}, SignedHeaders=host;x-amz-date, Signature=00"))
    };
    let mut bad_date = signed("GET", "/", b"");
    bad_date.headers.insert("x-amz-date", HeaderValue::from_static("2015/08/30"));
    let mut token = signed("GET", "/", b"");
    token.headers.insert("x-amz-security-token", HeaderValue::from_static("t"));
    for (case, skew, request, code, status, message) in [
        ("none", 0, plain, "MissingAuthenticationTokenException", 403, "Missing Authentication Token"),
        (
            "basic",
            0,
            authorized("Basic eA=="),
            "IncompleteSignatureException",
            400,
            "Unsupported AWS 'algorithm': 'Basic'.",
        ),
        (
            "parts",
            0,
            authorized("AWS4-HMAC-SHA256 Credential=x, Signature=y"),
            "IncompleteSignatureException",
            400,
            "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256",
        ),
        (
            "pair",
            0,
            authorized("AWS4-HMAC-SHA256 Credential"),
            "IncompleteSignatureException",
            400,
            "'Credential' not a valid key=value pair (missing equal-sign) in Authorization header: 'AWS4-HMAC-SHA256 Credential'.",
        ),
        (
            "date",
            0,
            bad_date,
            "IncompleteSignatureException",
            400,
            "Date must be in ISO-8601 'basic format'. Got '2015/08/30'. See http://en.wikipedia.org/wiki/ISO_8601",
        ),
        (
            "host",
            0,
            authorized("AWS4-HMAC-SHA256 Credential=x, SignedHeaders=x-amz-date, Signature=y"),
            "InvalidSignatureException",
            403,
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
        ),
        (
            "late",
            301,
            signed("GET", "/", b""),
            "InvalidSignatureException",
            403,
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)",
        ),
        (
            "early",
            -301,
            signed("GET", "/", b""),
            "InvalidSignatureException",
            403,
            "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T123059Z + 5 min.)",
        ),
        (
            "scope",
            0,
            credential("AKID/20150829/eu-west-1/sqs/aws3"),
            "InvalidSignatureException",
            403,
            "Credential should be scoped to a valid region, not 'eu-west-1'. Credential should be scoped to correct service: \
             'lambda'. Credential should be scoped with a valid terminator: 'aws4_request', not 'aws3'. Date in Credential \
             scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20150829' != '20150830', from \
             '20150830T123600Z'.",
        ),
        (
            "slashes",
            0,
            credential("AKID/x"),
            "IncompleteSignatureException",
            400,
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'AKID/x'",
        ),
        (
            "unknown",
            0,
            credential("AKIDNOBODY/20150830/us-east-1/lambda/aws4_request"),
            "UnrecognizedClientException",
            403,
            "The security token included in the request is invalid.",
        ),
        (
            "inactive",
            0,
            credential("AKIDINACTIVE/20150830/us-east-1/lambda/aws4_request"),
            "UnrecognizedClientException",
            403,
            "The security token included in the request is invalid.",
        ),
        (
            "token",
            0,
            token,
            "UnrecognizedClientException",
            403,
            "The security token included in the request is invalid.",
        ),
    ] {
        let refused = verifier(skew).await.begin(&request, "lambda").map(drop).unwrap_err();
        assert_eq!((refused.code(), refused.status().as_u16()), (code, status), "{case}: {refused}");
        assert_eq!(refused.to_string(), message, "{case}");
    }
    let wrong = credential(&format!("{ID}/20150830/us-east-1/lambda/aws4_request"));
    let refused = verifier(0).await.begin(&wrong, "lambda").unwrap().finish(b"").unwrap_err();
    assert_eq!(refused.code(), "InvalidSignatureException");
}

#[tokio::test]
async fn a_function_signs_with_its_short_lived_credentials() {
    let sessions = Arc::new(crate::sessions::Sessions::open(&Shelf::default()).await.unwrap());
    let verifier = |skew| {
        let sessions = Arc::clone(&sessions);
        async move { verifier(skew).await.with_sessions(sessions) }
    };
    let (region, account) = (Region::default(), AccountId::default());
    let function = lambent_model::FunctionArn { region, account, name: "f".parse().unwrap() };
    let made = |life| sessions.mint(&function, signer("lambda").at, std::time::Duration::from_secs(life)).unwrap();
    let signed = |made: &crate::sessions::Credentials| {
        let mut head = head("GET", "/");
        let (access_key_id, secret) = (made.access_key_id.as_str(), made.secret_access_key.as_str());
        let session_token = Some(made.session_token.as_str());
        sign(&mut head, b"", Signer { access_key_id, secret, session_token, ..signer("lambda") });
        head
    };
    let good = made(60);
    let by = verifier(0).await.begin(&signed(&good), "lambda").unwrap().finish(b"").unwrap();
    assert_eq!(by.arn, "arn:aws:sts::000000000000:assumed-role/lambda/f");
    assert_eq!((by.function.as_ref(), by.account.clone()), (Some(&function), AccountId::default()));
    let refused = |verifier: Verifier, head| verifier.begin(&head, "lambda").map(drop).unwrap_err();
    let expired = refused(verifier(61).await, signed(&good));
    assert_eq!((expired.code(), expired.status().as_u16()), ("ExpiredTokenException", 403));
    assert_eq!(expired.to_string(), "The security token included in the request is expired");
    let other = crate::sessions::Credentials { session_token: made(60).session_token, ..good.clone() };
    assert_eq!(refused(verifier(0).await, signed(&other)).code(), "UnrecognizedClientException");
    let wrong = crate::sessions::Credentials { secret_access_key: "x".to_owned(), ..good };
    let pending = verifier(0).await.begin(&signed(&wrong), "lambda").and_then(|pending| pending.finish(b""));
    assert_eq!(pending.unwrap_err().code(), "InvalidSignatureException");
}

#[tokio::test]
async fn an_account_gets_its_root_key_once() {
    let shelf: Arc<dyn Catalog> = Arc::new(Shelf::default());
    let now = at("2026-01-01T00:00:00Z");
    let account = AccountId::default();
    let first = Keys::open(Arc::clone(&shelf)).await.unwrap().root(&account, now).await.unwrap();
    let keys = Keys::open(shelf).await.unwrap();
    assert_eq!(keys.root(&account, now).await.unwrap(), first);
    assert_eq!((first.id.len(), first.secret.len()), (20, 40));
    assert!(first.id.starts_with("AKIA"));
    let other = keys.root(&"123456789012".parse().unwrap(), now).await.unwrap();
    assert_ne!(other.secret, first.secret);
    assert!(!format!("{first:?}").contains(&first.secret));
}
