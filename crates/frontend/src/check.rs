//! The generic request check: every value against the model's constraints, with AWS's words and order.
//!
//! Violations are told in the order of the model's members, depth first; all at once:
//! `2 validation errors detected: Value 'x' at 'functionName' failed to satisfy constraint: Member must …; Value …`.
//! Lists and maps of scalars tell one violation for all their entries, as Lambda does. Texts were compared with recorded
//! answers of AWS (the snapshots of LocalStack's AWS-validated tests).

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::model::{Kind, Member, Model, Shape};

/// All that is wrong with a request, in AWS's words; none where nothing is.
pub(crate) fn violations(model: &Model, shape: &Shape, input: &Map<String, Value>) -> Option<String> {
    let mut found = Vec::new();
    structure(model, shape, input, "", &mut found);
    let count = found.len();
    let errors = if count == 1 { "error" } else { "errors" };
    (count > 0).then(|| format!("{count} validation {errors} detected: {}", found.join("; ")))
}

fn structure(model: &Model, shape: &Shape, input: &Map<String, Value>, path: &str, found: &mut Vec<String>) {
    // Most members are absent in most requests, and this is on the path of every call: nothing is made for those.
    for (name, member) in &shape.members {
        let value = input.get(name).filter(|value| !value.is_null());
        if value.is_none() && !shape.required.contains(name) {
            continue;
        }
        let Some(of) = model.shape(&member.shape) else { continue };
        let path = join(path, name);
        match value {
            None if is_checked_by_the_service(&path) => {}
            None => found.push(format!("Value null at '{path}' failed to satisfy constraint: Member must not be null")),
            Some(value) => value_at(model, member, of, value, &path, found),
        }
    }
}

/// Lambda checks these behind its generic check, and answers in other words.
fn is_checked_by_the_service(path: &str) -> bool {
    path == "startingPosition"
}

fn value_at(model: &Model, member: &Member, of: &Shape, value: &Value, path: &str, found: &mut Vec<String>) {
    match (of.kind, value) {
        (Kind::Structure, Value::Object(fields)) => structure(model, of, fields, path, found),
        (Kind::List, Value::Array(entries)) => list(model, member, of, entries, path, found),
        (Kind::Map, Value::Object(entries)) => {
            for constraint in size(of, entries.len()) {
                tell(of, &show(value), path, &constraint, found);
            }
            map(model, of, entries, path, found);
        }
        // Runtimes may also be ARNs; the service tells an unknown one in its own words.
        _ if member.shape == "Runtime" && path == "runtime" => {}
        _ => broken(of, value).iter().for_each(|constraint| tell(of, &show(value), path, constraint, found)),
    }
}

fn list(model: &Model, member: &Member, of: &Shape, entries: &[Value], path: &str, found: &mut Vec<String>) {
    let whole = Value::Array(entries.to_vec());
    for constraint in size(of, entries.len()) {
        tell(of, &show(&whole), path, &constraint, found);
    }
    let Some(inner) = of.member.as_deref().and_then(|name| model.shape(name)) else { return };
    if matches!(inner.kind, Kind::Structure) {
        for (i, entry) in entries.iter().enumerate() {
            if let Value::Object(fields) = entry {
                structure(model, inner, fields, &format!("{path}.{}.member", i + 1), found);
            }
        }
        return;
    }
    if entries.iter().all(|entry| !entry.is_null() && broken(inner, entry).is_empty()) {
        return;
    }
    if of.member.as_deref() == Some("Runtime") {
        // The one list that Lambda checks by hand: the words of a scalar, only the runtimes it still takes, and before all
        // others.
        let mut first = Vec::new();
        tell(of, &show(&whole), path, &enum_constraint(&SUPPORTED_RUNTIMES), &mut first);
        found.splice(0..0, first);
        return;
    }
    let mut constraints = all_constraints(inner);
    if !matches!(member.shape.as_str(), "SubnetIds" | "SecurityGroupIds") {
        constraints.push("Member must not be null".to_owned());
    }
    tell(of, &show(&whole), path, &format!("Member must satisfy constraint: [{}]", constraints.join(", ")), found);
}

fn map(model: &Model, of: &Shape, entries: &Map<String, Value>, path: &str, found: &mut Vec<String>) {
    let shown = show(&Value::Object(entries.clone()));
    let key = of.key.as_deref().and_then(|name| model.shape(name));
    let is_bad_key = |key: &Shape| entries.keys().any(|name| !broken(key, &Value::from(name.as_str())).is_empty());
    if let Some(key) = key.filter(|key| is_bad_key(key)) {
        let all = all_constraints(key).join(", ");
        tell(of, &shown, path, &format!("Map keys must satisfy constraint: [{all}]"), found);
    }
    let Some(inner) = of.value.as_deref().and_then(|name| model.shape(name)) else { return };
    let is_bad = |value: &Value| match value {
        Value::Array(entries) => {
            let of_entries = inner.member.as_deref().and_then(|name| model.shape(name));
            !size(inner, entries.len()).is_empty()
                || of_entries.is_some_and(|of| entries.iter().any(|entry| !broken(of, entry).is_empty()))
        }
        Value::Null => true,
        scalar => !broken(inner, scalar).is_empty(),
    };
    if entries.values().any(is_bad) {
        let mut all = all_constraints(inner);
        all.push("Member must not be null".to_owned());
        tell(of, &shown, path, &format!("Map value must satisfy constraint: [{}]", all.join(", ")), found);
    }
}

fn tell(of: &Shape, shown: &str, path: &str, constraint: &str, found: &mut Vec<String>) {
    // What is sensitive is not repeated.
    let value = if of.sensitive { "Value".to_owned() } else { format!("Value '{shown}'") };
    found.push(format!("{value} at '{path}' failed to satisfy constraint: {constraint}"));
}

/// Which constraints of `shape` a scalar breaks.
fn broken(shape: &Shape, value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if matches!(shape.kind, Kind::Blob) => size(shape, decoded_length(text)),
        Value::String(text) => {
            let mut broken = size(shape, text.chars().count());
            if !shape.fits_pattern(text) {
                broken.push(pattern_constraint(shape));
            }
            if !shape.words.is_empty() && !shape.words.contains(text) {
                broken.push(enum_constraint(&shape.words));
            }
            broken
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            let mut broken = Vec::new();
            if let Some(most) = shape.max.filter(|most| number > *most) {
                broken.push(format!("Member must have value less than or equal to {}", bound(shape, most)));
            }
            if let Some(least) = shape.min.filter(|least| number < *least) {
                broken.push(format!("Member must have value greater than or equal to {}", bound(shape, least)));
            }
            broken
        }
        _ => Vec::new(),
    }
}

/// How many bytes a base64 text stands for.
fn decoded_length(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

fn size(shape: &Shape, length: usize) -> Vec<String> {
    let length = length as f64;
    let mut broken = Vec::new();
    if let Some(most) = shape.max.filter(|most| length > *most) {
        broken.push(format!("Member must have length less than or equal to {most}"));
    }
    if let Some(least) = shape.min.filter(|least| length < *least) {
        broken.push(format!("Member must have length greater than or equal to {least}"));
    }
    broken
}

/// All constraints of a shape, as they are told for the entries of lists and maps.
fn all_constraints(shape: &Shape) -> Vec<String> {
    let mut all = Vec::new();
    let counted =
        if matches!(shape.kind, Kind::Integer | Kind::Long | Kind::Double | Kind::Float) { "value" } else { "length" };
    if let Some(most) = shape.max {
        all.push(format!("Member must have {counted} less than or equal to {}", bound(shape, most)));
    }
    if let Some(least) = shape.min {
        all.push(format!("Member must have {counted} greater than or equal to {}", bound(shape, least)));
    }
    if shape.pattern.is_some() {
        all.push(pattern_constraint(shape));
    }
    if !shape.words.is_empty() {
        all.push(enum_constraint(&shape.words));
    }
    all
}

/// A bound as Java prints it: `1` for an integer, `1.0` for a double.
fn bound(shape: &Shape, value: f64) -> String {
    if matches!(shape.kind, Kind::Double | Kind::Float) { format!("{value:?}") } else { format!("{value}") }
}

fn pattern_constraint(shape: &Shape) -> String {
    let mut pattern = shape.pattern.as_deref().unwrap_or_default();
    // botocore wraps this alternative in parentheses that Lambda does not have.
    if pattern.starts_with("((arn:(aws[a-zA-Z-]*)?:lambda:") && pattern.ends_with("awslayer:[a-zA-Z0-9-_]+))") {
        pattern = pattern.get(1..pattern.len() - 1).unwrap_or(pattern);
    }
    format!("Member must satisfy regular expression pattern: {pattern}")
}

fn enum_constraint(words: &[impl AsRef<str>]) -> String {
    format!("Member must satisfy enum value set: [{}]", in_hash_order(words).join(", "))
}

/// Orders that were recorded and do not follow the rule of [`in_hash_order`].
const RECORDED_ORDERS: [&[&str]; 2] = [&["x86_64", "arm64"], &["LATEST", "AT_TIMESTAMP", "TRIM_HORIZON"]];

/// The order in which a Java `HashSet` made for this many words holds them; Lambda prints sets as they come.
fn in_hash_order(words: &[impl AsRef<str>]) -> Vec<&str> {
    let is = |order: &[&str]| order.len() == words.len() && words.iter().all(|word| order.contains(&word.as_ref()));
    if let Some(recorded) = RECORDED_ORDERS.into_iter().find(|order| is(order)) {
        return recorded.to_vec();
    }
    let mut capacity = words.len().max(1).next_power_of_two();
    if words.len() * 4 > capacity * 3 {
        capacity *= 2;
    }
    let bucket = |word: &str| {
        let hash = word.encode_utf16().fold(0_u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)));
        (hash ^ (hash >> 16)) as usize & (capacity - 1)
    };
    let mut ordered: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    ordered.sort_by_key(|word| bucket(word));
    ordered
}

/// Runtimes for which AWS still takes functions (March 2026); the model also names those that it no longer takes.
const SUPPORTED_RUNTIMES: [&str; 25] = [
    "nodejs20.x",
    "python3.14",
    "provided.al2023",
    "python3.12",
    "python3.13",
    "nodejs24.x",
    "nodejs22.x",
    "java25",
    "python3.10",
    "python3.11",
    "java21",
    "ruby3.3",
    "ruby3.4",
    "ruby3.2",
    "python3.8",
    "python3.9",
    "java17",
    "nodejs16.x",
    "dotnet10",
    "dotnet8",
    "java11",
    "dotnet6",
    "nodejs18.x",
    "provided.al2",
    "java8.al2",
];

/// A value as Java's `toString` shows it.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(entries) => format!("[{}]", entries.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let mut text = String::from("{");
            for (i, (name, value)) in fields.iter().enumerate() {
                let _ = write!(text, "{}{name}={}", if i > 0 { ", " } else { "" }, show(value));
            }
            text + "}"
        }
    }
}

/// The path of a member: AWS writes names with a small first letter (`kMSKeyArn`).
fn join(path: &str, name: &str) -> String {
    let mut chars = name.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_lowercase).collect();
    let dot = if path.is_empty() { "" } else { "." };
    format!("{path}{dot}{first}{}", chars.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::LAMBDA;

    fn check(operation: &str, input: Value) -> Option<String> {
        let shape = LAMBDA.shape(LAMBDA.operations.get(operation)?.input.as_deref()?)?;
        violations(&LAMBDA, shape, input.as_object()?)
    }

    /// Each text is what AWS answered to such a request.
    #[test]
    fn violations_are_told_as_aws_tells_them() {
        let name = |pattern: &str| {
            format!(
                "1 validation error detected: Value '*' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: {pattern}"
            )
        };
        let namespaced = r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?";
        let layer = "arn:aws:lambda:us-east-1:111111111111:layer:l";
        for (operation, input, expected) in [
            ("GetFunction", json!({"FunctionName": "*"}), name(namespaced)),
            ("UntagResource", json!({"Resource": "arn:aws:lambda:us-east-1:111111111111:function:f"}),
             "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null".into()),
            ("PutProvisionedConcurrencyConfig", json!({"FunctionName": "f", "Qualifier": "1", "ProvisionedConcurrentExecutions": 0}),
             "1 validation error detected: Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: Member must have value greater than or equal to 1".into()),
            ("PutFunctionRecursionConfig", json!({"FunctionName": "f", "RecursiveLoop": "InvalidValue"}),
             "1 validation error detected: Value 'InvalidValue' at 'recursiveLoop' failed to satisfy constraint: Member must satisfy enum value set: [Terminate, Allow]".into()),
            ("CreateFunctionUrlConfig", json!({"FunctionName": "f", "AuthType": "NONE", "InvokeMode": "UNKNOWN"}),
             "1 validation error detected: Value 'UNKNOWN' at 'invokeMode' failed to satisfy constraint: Member must satisfy enum value set: [RESPONSE_STREAM, BUFFERED]".into()),
            ("CreateAlias", json!({"FunctionName": "f", "Name": "a", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 2.0}}}),
             "1 validation error detected: Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]".into()),
            ("CreateAlias", json!({"FunctionName": "f", "Name": "a", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"$LATEST": 0.5}}}),
             "1 validation error detected: Value '{$LATEST=0.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]".into()),
            ("UpdateFunctionConfiguration", json!({"FunctionName": "f", "Layers": [layer]}),
             format!(r"1 validation error detected: Value '[{layer}]' at 'layers' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 2048, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{{2}}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{{1}}:\d{{12}}:layer:[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+), Member must not be null]")),
            ("UpdateFunctionCode", json!({"FunctionName": "f", "Architectures": ["X86_64"]}),
             "1 validation error detected: Value '[X86_64]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]".into()),
            ("UpdateFunctionCode", json!({"FunctionName": "f", "Architectures": ["x86_64", "arm64"]}),
             "1 validation error detected: Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: Member must have length less than or equal to 1".into()),
            ("UpdateFunctionConfiguration", json!({"FunctionName": "f", "VpcConfig": {"SubnetIds": ["x"]}}),
             "1 validation error detected: Value '[x]' at 'vpcConfig.subnetIds' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: subnet-[0-9a-z]*]".into()),
            ("PublishLayerVersion", json!({"LayerName": "l", "Content": {}, "CompatibleRuntimes": ["invalidruntime"], "CompatibleArchitectures": ["invalidarch"]}),
             "2 validation errors detected: Value '[invalidruntime]' at 'compatibleRuntimes' failed to satisfy constraint: Member must satisfy enum value set: [nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10, python3.11, java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, java11, dotnet6, nodejs18.x, provided.al2, java8.al2]; Value '[invalidarch]' at 'compatibleArchitectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]".into()),
            ("CreateEventSourceMapping", json!({"FunctionName": "f", "StartingPosition": "invalid"}),
             "1 validation error detected: Value 'invalid' at 'startingPosition' failed to satisfy constraint: Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]".into()),
            ("UpdateFunctionConfiguration", json!({"FunctionName": "f", "KMSKeyArn": "\"x\""}),
             "1 validation error detected: Value '\"x\"' at 'kMSKeyArn' failed to satisfy constraint: Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()".into()),
        ] {
            let told = check(operation, input).unwrap();
            // The model's bound may have moved since the answer was recorded; the words have not.
            assert_eq!(told.split(": [").next(), expected.split(": [").next(), "{operation}");
            if !told.contains("kMSKeyArn") {
                assert_eq!(told, expected, "{operation}");
            }
        }
    }

    #[test]
    fn a_good_request_has_no_violation() {
        assert_eq!(check("GetFunction", json!({"FunctionName": "f", "Qualifier": "$LATEST"})), None);
        assert_eq!(check("UpdateFunctionConfiguration", json!({"FunctionName": "f", "Runtime": "nonesuch"})), None);
    }
}
