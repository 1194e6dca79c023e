//! Which calls belong to the same container: the value of a request's routing parameter.
//!
//! A request may name its value itself ([`HEADER`]); else the function's setting says where it is. What stands in the payload is looked for
//! where the payload is run, so that whatever sends an event need not know; all else where the request comes in. A value is made a digest
//! as soon as it is found.

use std::net::IpAddr;

use http::HeaderMap;
use lambent_fleet::AffinityValue;
use lambent_model::affinity::{Affinity, MAX_VALUE_BYTES, Parameter};
use percent_encoding::percent_decode;
use serde_json::Value;

use crate::Error;

/// A request's own value; in answers: whether it was a `hit`, a `miss` or a `spill`.
pub const HEADER: &str = "x-lambent-affinity";

/// A request, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its query, as it was sent.
    pub query: &'a str,
    /// Whose it is; none: nobody's.
    pub account: Option<&'a str>,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

/// The value of a request; none: it has none, or has it in its payload.
pub fn value(setting: Option<&Affinity>, origin: Origin<'_>) -> Result<Option<AffinityValue>, Error> {
    if let Some(own) = origin.headers.get(HEADER) {
        return match own.len() {
            1..=MAX_VALUE_BYTES => Ok(Some(AffinityValue::of(own.as_bytes()))),
            bytes => Err(Error::AffinityValue { bytes }),
        };
    }
    let Some(setting) = setting else { return Ok(None) };
    Ok(match &setting.by {
        Parameter::Header(name) => origin.headers.get(name).map(|value| AffinityValue::of(value.as_bytes())),
        Parameter::Query(name) => parameter(origin.query, name).map(|value| AffinityValue::of(&value)),
        Parameter::Account => origin.account.map(|account| AffinityValue::of(account.as_bytes())),
        Parameter::Address => {
            origin.address.map(|address| AffinityValue::of(address.to_canonical().to_string().as_bytes()))
        }
        Parameter::Payload(_) => None,
    })
}

/// The value that is in a payload. What is no JSON, or has not exactly one thing there, has none.
pub(crate) fn in_payload(setting: &Affinity, payload: &[u8]) -> Option<AffinityValue> {
    let Parameter::Payload(path) = &setting.by else { return None };
    let payload: Value = serde_json::from_slice(payload).ok()?;
    match path.one(&payload)? {
        Value::Null => None,
        Value::String(text) => Some(AffinityValue::of(text.as_bytes())),
        other => Some(AffinityValue::of(other.to_string().as_bytes())),
    }
}

/// The first parameter of this name.
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let decoded = |text: &str| percent_decode(text.replace('+', " ").as_bytes()).collect::<Vec<u8>>();
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(found) == name.as_bytes()).then(|| decoded(value))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn by(parameter: &str) -> Affinity {
        Affinity { by: parameter.parse().unwrap() }
    }

    #[test]
    fn a_value_is_found_where_the_setting_says() {
        let headers: HeaderMap =
            [("x-user", "ada")].map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).into_iter().collect();
        let address = Some("::ffff:192.0.2.7".parse().unwrap());
        let origin =
            Origin { headers: &headers, query: "a=1&user+id=a%64a&user+id=bob", account: Some("123"), address };
        let of = |parameter: &str| value(Some(&by(parameter)), origin).unwrap();
        let ada = Some(AffinityValue::of(b"ada"));
        assert_eq!([of("header:X-User"), of("query:user id")], [ada, ada]);
        assert_eq!(
            [of("account"), of("address")],
            [Some(AffinityValue::of(b"123")), Some(AffinityValue::of(b"192.0.2.7"))]
        );
        assert_eq!([of("header:x-none"), of("query:none"), of("$.user")], [None; 3]);
        assert_eq!(value(None, origin).unwrap(), None);
    }

    #[test]
    fn a_request_names_its_value_itself() {
        let said = |own: &str| {
            let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), own.parse().unwrap())]);
            value(Some(&by("account")), Origin { headers: &headers, query: "", account: Some("123"), address: None })
        };
        assert_eq!(said("ada").unwrap(), Some(AffinityValue::of(b"ada")));
        assert!(said("").is_err());
        let error = said(&"secret".repeat(50)).unwrap_err();
        assert_eq!((error.code(), error.status()), ("InvalidParameterValueException", 400));
        assert_eq!(error.to_string(), "X-Lambent-Affinity has 300 bytes; a value has 1 to 255");
    }

    #[test]
    fn a_payload_has_one_value_or_none() {
        let of = |payload: &str| in_payload(&by("$.a.b"), payload.as_bytes());
        assert_eq!(of(r#"{"a": {"b": "x"}}"#), Some(AffinityValue::of(b"x")));
        assert_eq!(of(r#"{"a": {"b": 7}}"#), Some(AffinityValue::of(b"7")));
        for none in ["{}", "no JSON", r#"{"a": {"b": null}}"#, "[1]"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(in_payload(&by("$.*"), br#"{"a": 1, "b": 2}"#), None);
    }
}
