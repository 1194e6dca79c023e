//! Reading what a request claims: the `Authorization` header, or the `X-Amz-…` parameters of a presigned URL.

use std::borrow::Cow;

use http::HeaderMap;
use http::request::Parts;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::{ALGORITHM, Error};

/// Presigned URLs live for seven days at most.
const MOST_EXPIRES_SECS: i64 = 604_800;

/// A signature as a request carries it.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    /// `KEYID/DAY/REGION/SERVICE/aws4_request`.
    pub credential: Cow<'a, str>,
    /// `host;x-amz-date`.
    pub signed_headers: Cow<'a, str>,
    /// 64 hexadecimal digits.
    pub signature: Cow<'a, str>,
    /// The time of signing as text, in the basic format.
    pub date: Cow<'a, str>,
    /// The time of signing.
    pub at: Timestamp,
    /// Seconds that a presigned URL is good for; none where the signature is in the header.
    pub expires: Option<i64>,
    /// The token of temporary credentials.
    pub session_token: Option<Cow<'a, str>>,
}

/// What `head` claims.
pub(super) fn read(head: &Parts) -> Result<Claim<'_>, Error> {
    let query = head.uri.query().unwrap_or_default();
    match head.headers.get(http::header::AUTHORIZATION) {
        Some(value) => from_header(value.to_str().map_err(|_| Error::MissingToken)?, &head.headers),
        None if parameter(query, "X-Amz-Algorithm").as_deref() == Some(ALGORITHM) => from_query(query, &head.headers),
        None => Err(Error::MissingToken),
    }
}

fn from_header<'a>(value: &'a str, headers: &'a HeaderMap) -> Result<Claim<'a>, Error> {
    let value = value.trim();
    let (algorithm, rest) = value.split_once(' ').unwrap_or((value, ""));
    if algorithm != ALGORITHM {
        return Err(Error::Incomplete(format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
    }
    let (mut credential, mut signature, mut signed_headers) = (None, None, None);
    for part in rest.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, content)) = part.split_once('=') else {
            let text =
                format!("'{part}' not a valid key=value pair (missing equal-sign) in Authorization header: '{value}'.");
            return Err(Error::Incomplete(text));
        };
        match name {
            "Credential" => credential = Some(content),
            "Signature" => signature = Some(content),
            "SignedHeaders" => signed_headers = Some(content),
            _ => {}
        }
    }
    let date = ["x-amz-date", "date"].iter().find_map(|name| headers.get(*name)?.to_str().ok());
    let (Some(credential), Some(signature), Some(signed_headers), Some(date)) =
        (credential, signature, signed_headers, date)
    else {
        let mut missing = String::new();
        for (name, there) in [
            ("Credential", credential.is_some()),
            ("Signature", signature.is_some()),
            ("SignedHeaders", signed_headers.is_some()),
        ] {
            if !there {
                missing.push_str(&format!("Authorization header requires '{name}' parameter. "));
            }
        }
        if date.is_none() {
            missing.push_str("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ");
        }
        return Err(Error::Incomplete(format!("{missing}Authorization={algorithm}")));
    };
    let at = parse_date(date)?;
    Ok(Claim {
        credential: credential.into(),
        signed_headers: signed_headers.into(),
        signature: signature.into(),
        // A `Date` header has another form; the string to sign wants the basic one.
        date: if is_basic(date) { date.into() } else { super::basic_format(at).into() },
        at,
        expires: None,
        session_token: token(headers),
    })
}

fn from_query<'a>(query: &'a str, headers: &'a HeaderMap) -> Result<Claim<'a>, Error> {
    let found = ["X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"]
        .map(|name| (name, parameter(query, name)));
    let missing: Vec<String> = found
        .iter()
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| format!("AWS query-string parameters must include '{name}'. "))
        .collect();
    let [(_, Some(credential)), (_, Some(signature)), (_, Some(signed_headers)), (_, Some(date))] = found else {
        let text = format!("{}Re-examine the query-string parameters.", missing.concat());
        return Err(Error::Incomplete(text));
    };
    let at = parse_date(&date)?;
    let expires = match parameter(query, "X-Amz-Expires") {
        None => MOST_EXPIRES_SECS,
        Some(text) => match text.parse() {
            Ok(secs @ 0..=MOST_EXPIRES_SECS) => secs,
            Ok(secs) if secs > MOST_EXPIRES_SECS => {
                let text = "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must \
                            be less than 604800 seconds";
                return Err(Error::Incomplete(text.to_owned()));
            }
            Ok(_) => return Err(Error::Incomplete("X-Amz-Expires must be non-negative".to_owned())),
            Err(_) => return Err(Error::Incomplete("X-Amz-Expires should be a number".to_owned())),
        },
    };
    let session_token = parameter(query, "X-Amz-Security-Token").or_else(|| token(headers));
    Ok(Claim { credential, signed_headers, signature, date, at, expires: Some(expires), session_token })
}

fn token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    headers.get("x-amz-security-token").map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// The first parameter of this name, decoded.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy())
}

fn is_basic(text: &str) -> bool {
    matches!(text.as_bytes(), [date @ .., b'Z'] if date.len() == 15)
}

fn parse_date(text: &str) -> Result<Timestamp, Error> {
    let basic = is_basic(text).then(|| parse_basic(text)).flatten();
    let parsed = basic.or_else(|| {
        let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
        Some(zoned.timestamp())
    });
    parsed.ok_or_else(|| {
        Error::Incomplete(format!(
            "Date must be in ISO-8601 'basic format'. Got '{text}'. See http://en.wikipedia.org/wiki/ISO_8601"
        ))
    })
}

/// `20150830T123600Z`, by hand: this is on the path of every call and the general parser is thirty times slower.
fn parse_basic(text: &str) -> Option<Timestamp> {
    let digits = |from: usize, to: usize| -> Option<i16> {
        let part = text.get(from..to)?;
        if part.bytes().all(|b| b.is_ascii_digit()) { part.parse().ok() } else { None }
    };
    if text.get(8..9)? != "T" {
        return None;
    }
    let small = |from: usize| digits(from, from + 2).and_then(|number| i8::try_from(number).ok());
    let time = jiff::civil::DateTime::new(digits(0, 4)?, small(4)?, small(6)?, small(9)?, small(11)?, small(13)?, 0);
    jiff::tz::TimeZone::UTC.to_timestamp(time.ok()?).ok()
}
