//! From labels, query, headers and body to one JSON object with the model's member names.

use std::borrow::Cow;

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Number, Value};

use crate::failure::Failure;
use crate::model::{Kind, Location, Member, Model, Shape};

/// The members of `shape` that a request carries, with the types the model gives them. A blob that is the whole body is
/// left out: it stays bytes.
pub(crate) fn read(
    model: &Model,
    shape: &Shape,
    labels: &[(&str, Cow<'_, str>)],
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Map<String, Value>, Failure> {
    let mut input = match &shape.payload {
        None if shape.members.iter().any(|(_, member)| member.location == Location::Body) => {
            structure(model, shape, json(body)?)?
        }
        None => Map::new(),
        Some(name) => payload(model, shape, name, body)?,
    };
    for (name, member) in &shape.members {
        let wire = member.location_name.as_deref().unwrap_or(name);
        let Some(of) = model.shape(&member.shape) else { continue };
        let found = match member.location {
            Location::Uri => labels.iter().find(|(label, _)| *label == wire).map(|(_, text)| text.clone().into_owned()),
            Location::Header => headers.get(wire).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            Location::Query if of.kind == Kind::List => {
                let entries: Vec<Value> = parameters(query, wire).map(Value::from).collect();
                if !entries.is_empty() {
                    input.insert(name.clone(), entries.into());
                }
                None
            }
            Location::Query => parameters(query, wire).next(),
            Location::Body | Location::StatusCode => None,
        };
        if let Some(text) = found {
            input.insert(name.clone(), from_text(of, text)?);
        }
    }
    Ok(input)
}

/// The members of a JSON body, as the JSON protocols of AWS have them.
pub(crate) fn read_body(model: &Model, shape: &Shape, body: &[u8]) -> Result<Map<String, Value>, Failure> {
    structure(model, shape, json(body)?)
}

fn payload(model: &Model, shape: &Shape, name: &str, body: &[u8]) -> Result<Map<String, Value>, Failure> {
    let mut input = Map::new();
    match shape.get(name).and_then(|member| model.shape(&member.shape)) {
        Some(of) if of.kind == Kind::Structure && !body.is_empty() => {
            input.insert(name.to_owned(), structure(model, of, json(body)?)?.into());
        }
        // The bytes stay outside; here only stands that there are some, for the check of what is required.
        Some(of) if of.kind == Kind::Blob => drop(input.insert(name.to_owned(), Value::String(String::new()))),
        _ => {}
    }
    Ok(input)
}

fn json(body: &[u8]) -> Result<Value, Failure> {
    if body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_slice(body).map_err(|_| Failure::serialization("Unexpected end of input or malformed JSON"))
}

/// All values of a query parameter, decoded.
pub(crate) fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        (decode(key) == name).then(|| decode(value))
    })
}

fn structure(model: &Model, shape: &Shape, value: Value) -> Result<Map<String, Value>, Failure> {
    let Value::Object(mut fields) = value else {
        return Err(Failure::serialization("Start of structure or map expected"));
    };
    let mut input = Map::new();
    for (name, member) in &shape.members {
        if member.location != Location::Body {
            continue;
        }
        let wire = member.location_name.as_deref().unwrap_or(name);
        match fields.remove(wire) {
            None | Some(Value::Null) => {}
            Some(value) => drop(input.insert(name.clone(), typed(model, member, value)?)),
        }
    }
    Ok(input)
}

fn typed(model: &Model, member: &Member, value: Value) -> Result<Value, Failure> {
    match model.shape(&member.shape) {
        Some(shape) => typed_as(model, shape, value),
        None => Ok(value),
    }
}

fn typed_as(model: &Model, shape: &Shape, value: Value) -> Result<Value, Failure> {
    let inner = |name: &Option<String>| name.as_deref().and_then(|name| model.shape(name));
    match (shape.kind, value) {
        (_, Value::Null) => Ok(Value::Null),
        (Kind::Structure, value @ Value::Object(_)) => structure(model, shape, value).map(Value::Object),
        (Kind::List, Value::Array(entries)) => {
            let Some(of) = inner(&shape.member) else { return Ok(entries.into()) };
            entries.into_iter().map(|entry| typed_as(model, of, entry)).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        (Kind::Map, Value::Object(entries)) => {
            let Some(of) = inner(&shape.value) else { return Ok(entries.into()) };
            let typed = entries.into_iter().map(|(key, entry)| Ok((key, typed_as(model, of, entry)?)));
            typed.collect::<Result<Map<_, _>, Failure>>().map(Value::Object)
        }
        (Kind::List, _) => Err(Failure::serialization("Expected list or null")),
        (Kind::Structure | Kind::Map, _) => Err(Failure::serialization("Expected null")),
        (_, Value::Array(_)) => Err(Failure::serialization("Start of list found where not expected")),
        (_, Value::Object(_)) => Err(Failure::serialization("Start of structure or map found where not expected.")),
        (Kind::String | Kind::Blob, value @ Value::String(_)) | (Kind::Boolean, value @ Value::Bool(_)) => Ok(value),
        (Kind::Timestamp, value @ (Value::Number(_) | Value::String(_))) => Ok(value),
        (Kind::Double | Kind::Float, Value::Number(number)) => {
            Ok(number.as_f64().and_then(Number::from_f64).map_or(Value::Null, Value::Number))
        }
        (Kind::Integer | Kind::Long, Value::Number(number)) => whole(shape.kind, &number),
        (kind, value) => Err(mismatch(kind, &value)),
    }
}

/// Java's narrowing: `3.9` is 3; what an `int` cannot hold is refused.
fn whole(kind: Kind, number: &Number) -> Result<Value, Failure> {
    let value = number.as_i64().or_else(|| number.as_f64().filter(|f| f.abs() < 9e15).map(|f| f.trunc() as i64));
    match value {
        Some(value) if kind == Kind::Long || i32::try_from(value).is_ok() => Ok(value.into()),
        _ => Err(mismatch(kind, &Value::Number(number.clone()))),
    }
}

fn mismatch(kind: Kind, value: &Value) -> Failure {
    let found = match value {
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        _ => "STRING_VALUE",
    };
    let wanted = match kind {
        Kind::String => "a String",
        Kind::Blob => "a Blob",
        Kind::Boolean => "a Boolean",
        Kind::Integer => "an Integer",
        Kind::Long => "a Long",
        Kind::Double | Kind::Float => "a Double",
        Kind::Timestamp => "a Timestamp",
        Kind::List | Kind::Map | Kind::Structure => "null",
    };
    Failure::serialization(format!("{found} can not be converted to {wanted}"))
}

/// A value that came as text.
fn from_text(shape: &Shape, text: String) -> Result<Value, Failure> {
    let bad = |text: String| mismatch(shape.kind, &Value::String(text));
    match shape.kind {
        Kind::Integer | Kind::Long => {
            let number = text.parse::<i64>().map_err(|_| bad(text))?;
            whole(shape.kind, &number.into())
        }
        Kind::Boolean => match text.as_str() {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(bad(text)),
        },
        Kind::Double | Kind::Float => text.parse::<f64>().map(Value::from).map_err(|_| bad(text)),
        _ => Ok(Value::String(text)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::LAMBDA;

    fn body(shape: &str, body: &str) -> Result<Value, String> {
        let shape = LAMBDA.shape(shape).unwrap();
        let read = read(&LAMBDA, shape, &[], "", &HeaderMap::new(), body.as_bytes());
        read.map(Value::Object).map_err(|failure| failure.message)
    }

    #[test]
    fn bodies_become_members_and_wrong_types_are_refused() {
        let shape = "CreateFunctionRequest";
        assert_eq!(
            body(
                shape,
                r#"{"FunctionName":"f","Timeout":3.0,"Nonesuch":1,"Handler":null,"VpcConfig":{"SubnetIds":["a"]}}"#
            ),
            Ok(json!({"FunctionName":"f","Timeout":3,"VpcConfig":{"SubnetIds":["a"]}}))
        );
        for (text, told) in [
            (r#"{"Timeout":"3"}"#, "STRING_VALUE can not be converted to an Integer"),
            (r#"{"Timeout":3000000000}"#, "NUMBER_VALUE can not be converted to an Integer"),
            (r#"{"FunctionName":1}"#, "NUMBER_VALUE can not be converted to a String"),
            (r#"{"Publish":"true"}"#, "STRING_VALUE can not be converted to a Boolean"),
            (r#"{"Layers":"x"}"#, "Expected list or null"),
            (r#"{"FunctionName":["x"]}"#, "Start of list found where not expected"),
            (r#"{"FunctionName":{}}"#, "Start of structure or map found where not expected."),
        ] {
            assert_eq!(body(shape, text), Err(told.to_owned()), "{text}");
        }
        assert!(body(shape, "{").is_err());
        assert!(body(shape, "[]").is_err());
    }

    #[test]
    fn queries_and_labels_are_typed() {
        let shape = LAMBDA.shape("UntagResourceRequest").unwrap();
        let labels = [("Resource", Cow::Borrowed("arn:x"))];
        let input = read(&LAMBDA, shape, &labels, "tagKeys=a%20b&tagKeys=c", &HeaderMap::new(), b"").unwrap();
        assert_eq!(Value::Object(input), json!({"Resource": "arn:x", "TagKeys": ["a b", "c"]}));
        let shape = LAMBDA.shape("ListFunctionsRequest").unwrap();
        let input = read(&LAMBDA, shape, &[], "MaxItems=5&Marker=m", &HeaderMap::new(), b"").unwrap();
        assert_eq!(Value::Object(input), json!({"MaxItems": 5, "Marker": "m"}));
        assert!(read(&LAMBDA, shape, &[], "MaxItems=x", &HeaderMap::new(), b"").is_err());
    }
}
