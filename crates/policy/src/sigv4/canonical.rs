//! The canonical request: the one text that client and server derive from the same request.

use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// As above, with slashes left alone.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// What a canonical request is made of.
pub(super) struct Parts<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// The path as it went over the wire, encoded once.
    pub path: &'a str,
    /// The query as it went over the wire.
    pub query: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The host, where it is not among the headers (it is in the URI of an absolute-form request).
    pub host: Option<&'a str>,
    /// Names of the signed headers, lower case.
    pub signed_headers: &'a [&'a str],
    /// The body's digest, or what stands for it.
    pub payload_hash: &'a str,
}

/// The canonical request.
pub(super) fn request(parts: &Parts<'_>) -> String {
    let mut text = String::with_capacity(1024);
    text.push_str(parts.method);
    text.push('\n');
    push_path(&mut text, parts.path);
    text.push('\n');
    push_query(&mut text, parts.query.unwrap_or_default());
    text.push('\n');
    for name in parts.signed_headers {
        text.push_str(name);
        text.push(':');
        push_header(&mut text, parts, name);
        text.push('\n');
    }
    text.push('\n');
    for (i, name) in parts.signed_headers.iter().enumerate() {
        if i > 0 {
            text.push(';');
        }
        text.push_str(name);
    }
    text.push('\n');
    text.push_str(parts.payload_hash);
    text
}

/// Dot segments and empty segments go, then all is encoded a second time, as every service but S3 wants it.
fn push_path(text: &mut String, path: &str) {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    for segment in &kept {
        text.push('/');
        text.extend(utf8_percent_encode(segment, RESERVED_IN_PATH));
    }
    if kept.is_empty() || path.ends_with('/') {
        text.push('/');
    }
}

/// Parameters sorted by encoded name and value; the signature itself is left out.
fn push_query(text: &mut String, query: &str) {
    let encode = |part: &str| {
        let decoded = percent_decode_str(part).decode_utf8_lossy();
        utf8_percent_encode(&decoded, RESERVED).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .filter(|(name, _)| name != "X-Amz-Signature")
        .collect();
    pairs.sort();
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
}

/// All values of a header, trimmed, with runs of spaces made one, joined by commas.
fn push_header(text: &mut String, parts: &Parts<'_>, name: &str) {
    let mut any = false;
    for value in parts.headers.get_all(name) {
        if any {
            text.push(',');
        }
        any = true;
        push_trimmed(text, &String::from_utf8_lossy(value.as_bytes()));
    }
    if let (false, "host", Some(host)) = (any, name, parts.host) {
        text.push_str(host);
    }
}

fn push_trimmed(text: &mut String, value: &str) {
    let mut space = false;
    for c in value.trim().chars() {
        if c == ' ' && space {
            continue;
        }
        space = c == ' ';
        text.push(c);
    }
}
