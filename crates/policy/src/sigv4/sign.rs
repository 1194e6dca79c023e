//! The client's side.

use aws_lc_rs::hmac;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderValue, Uri};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ALGORITHM, TERMINATOR, basic_format, canonical, sha256_hex, signing_key};

/// What a client signs with.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// The access key's id.
    pub access_key_id: &'a str,
    /// Its secret.
    pub secret: &'a str,
    /// A session token, for temporary credentials.
    pub session_token: Option<&'a str>,
    /// The region called.
    pub region: &'a str,
    /// The service called: `lambda`, `logs`.
    pub service: &'a str,
    /// The time of the signature.
    pub at: Timestamp,
}

impl Signer<'_> {
    fn scope(&self, date: &str) -> String {
        format!("{}/{}/{}/{TERMINATOR}", date.get(..8).unwrap_or_default(), self.region, self.service)
    }

    fn signature(&self, date: &str, canonical: &str) -> String {
        let to_sign = format!("{ALGORITHM}\n{date}\n{}\n{}", self.scope(date), sha256_hex(canonical.as_bytes()));
        let key = signing_key(self.secret, date.get(..8).unwrap_or_default(), self.region, self.service);
        hex::encode(hmac::sign(&key, to_sign.as_bytes()))
    }
}

/// Signs a request in its headers: adds `host` (from the URI) where it is missing, `x-amz-date`, and `authorization`.
///
/// Every header that is there already is signed, except those that proxies change.
pub fn sign(head: &mut Parts, body: &[u8], signer: Signer<'_>) {
    let date = basic_format(signer.at);
    add_host(head);
    insert(head, "x-amz-date", &date);
    if let Some(token) = signer.session_token {
        insert(head, "x-amz-security-token", token);
    }
    let payload_hash = match head.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok()) {
        Some(declared) => declared.to_owned(),
        None => sha256_hex(body),
    };
    let names = signable(head);
    let signed_headers: Vec<&str> = names.iter().map(String::as_str).collect();
    let canonical = canonical_request(head, &signed_headers, &payload_hash);
    let authorization = format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
        signer.access_key_id,
        signer.scope(&date),
        signed_headers.join(";"),
        signer.signature(&date, &canonical),
    );
    insert(head, AUTHORIZATION.as_str(), &authorization);
}

/// Signs a request in its query string, good for `expires_secs` seconds; only `host` is signed among the headers.
pub fn presign(head: &mut Parts, body: &[u8], signer: Signer<'_>, expires_secs: u32) {
    let date = basic_format(signer.at);
    add_host(head);
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut query = head.uri.query().map(|query| format!("{query}&")).unwrap_or_default();
    let credential = encode(&format!("{}/{}", signer.access_key_id, signer.scope(&date)));
    query.push_str(&format!("X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={credential}&X-Amz-Date={date}"));
    query.push_str(&format!("&X-Amz-Expires={expires_secs}&X-Amz-SignedHeaders=host"));
    if let Some(token) = signer.session_token {
        query.push_str(&format!("&X-Amz-Security-Token={}", encode(token)));
    }
    set_query(head, &query);
    let canonical = canonical_request(head, &["host"], &sha256_hex(body));
    query.push_str(&format!("&X-Amz-Signature={}", signer.signature(&date, &canonical)));
    set_query(head, &query);
}

fn canonical_request(head: &Parts, signed_headers: &[&str], payload_hash: &str) -> String {
    canonical::request(&canonical::Parts {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        host: None,
        signed_headers,
        payload_hash,
    })
}

/// Lower-case names of the headers to sign, sorted.
fn signable(head: &Parts) -> Vec<String> {
    const CHANGED_BY_PROXIES: [&str; 6] =
        ["authorization", "connection", "expect", "transfer-encoding", "user-agent", "x-amzn-trace-id"];
    let mut names: Vec<String> = head
        .headers
        .keys()
        .map(|name| name.as_str().to_owned())
        .filter(|name| !CHANGED_BY_PROXIES.contains(&name.as_str()))
        .collect();
    names.sort_unstable();
    names
}

fn add_host(head: &mut Parts) {
    if head.headers.contains_key(HOST) {
        return;
    }
    let Some(authority) = head.uri.authority().map(|authority| authority.as_str().to_owned()) else { return };
    // Clients leave the scheme's own port out of the Host header.
    let own_port = if head.uri.scheme_str() == Some("https") { ":443" } else { ":80" };
    insert(head, HOST.as_str(), authority.strip_suffix(own_port).unwrap_or(&authority));
}

/// Text that cannot stand in a header is left out; the signature then does not fit and the server says so.
fn insert(head: &mut Parts, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        head.headers.insert(name, value);
    }
}

fn set_query(head: &mut Parts, query: &str) {
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |whole| whole.path()).to_owned();
    parts.path_and_query = format!("{path}?{query}").parse().ok();
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}
