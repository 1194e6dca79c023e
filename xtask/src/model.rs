//! The service models of Lambda, CloudWatch Logs and EventBridge Scheduler as data: names, types, limits, patterns, paths, statuses, errors.
//!
//! Taken from botocore's `service-2.json`, without a word of its documentation; the result is committed and embedded in
//! the front end. One operation or shape a line, so that a new botocore shows as a readable diff.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

/// Arguments of `cargo xtask model`.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// botocore's `data` directory; by default that of the Python environment in `target/venv`.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// The operations of CloudWatch Logs that the front end answers or refuses by name.
const LOGS_OPERATIONS: [&str; 14] = [
    "CreateLogGroup",
    "CreateLogStream",
    "DeleteLogGroup",
    "DeleteLogStream",
    "DeleteRetentionPolicy",
    "DescribeLogGroups",
    "DescribeLogStreams",
    "FilterLogEvents",
    "GetLogEvents",
    "ListTagsForResource",
    "ListTagsLogGroup",
    "PutLogEvents",
    "PutRetentionPolicy",
    "StartLiveTail",
];

/// What is kept of an operation, and under which key botocore has it.
const OPERATION_KEYS: [&str; 3] = ["http", "input", "output"];
const SHAPE_KEYS: [&str; 17] = [
    "type",
    "enum",
    "min",
    "max",
    "pattern",
    "required",
    "members",
    "member",
    "key",
    "value",
    "payload",
    "error",
    "exception",
    "eventstream",
    "event",
    "streaming",
    "sensitive",
];
const MEMBER_KEYS: [&str; 4] = ["shape", "location", "locationName", "eventpayload"];

/// Writes all models.
pub fn run(args: &ModelArgs) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent")?;
    let data = match &args.data {
        Some(data) => data.clone(),
        None => in_venv(&root.join("target/venv/lib"))?,
    };
    let target = root.join("crates/frontend/model");
    std::fs::create_dir_all(&target)?;
    for (service, version, only) in [
        ("lambda", "2015-03-31", None),
        ("logs", "2014-03-28", Some(LOGS_OPERATIONS.as_slice())),
        ("scheduler", "2021-06-30", None),
    ] {
        let model = read(&data.join(service).join(version).join("service-2.json"))?;
        let text = condense(&model, only).with_context(|| format!("the {service} model"))?;
        let path = target.join(format!("{service}.json"));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

fn in_venv(lib: &Path) -> Result<PathBuf> {
    let pythons = std::fs::read_dir(lib).with_context(|| {
        format!(
            "no {}: make it with `python3 -m venv target/venv && target/venv/bin/pip install botocore`",
            lib.display()
        )
    })?;
    for python in pythons {
        let data = python?.path().join("site-packages/botocore/data");
        if data.is_dir() {
            return Ok(data);
        }
    }
    bail!("no botocore under {}", lib.display())
}

fn read(path: &Path) -> Result<Value> {
    let packed = path.with_extension("json.gz");
    let bytes = if packed.is_file() {
        let output = Command::new("gzip").arg("-dc").arg(&packed).output().context("cannot run gzip")?;
        output.stdout
    } else {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))
}

fn condense(model: &Value, only: Option<&[&str]>) -> Result<String> {
    let operations = object(model, "operations")?;
    let shapes = object(model, "shapes")?;
    let mut lines = Vec::new();
    let mut wanted = BTreeSet::new();
    for (name, operation) in operations {
        if only.is_some_and(|only| !only.contains(&name.as_str())) {
            continue;
        }
        let mut kept = Map::new();
        for key in OPERATION_KEYS {
            let Some(value) = operation.get(key) else { continue };
            if let Some(shape) = value.get("shape").and_then(Value::as_str) {
                reach(shapes, shape, &mut wanted);
                kept.insert(key.to_owned(), shape.into());
            } else {
                kept.insert(key.to_owned(), value.clone());
            }
        }
        let errors = operation.get("errors").and_then(Value::as_array).into_iter().flatten();
        let errors: Vec<&str> = errors.filter_map(|error| error.get("shape")?.as_str()).collect();
        errors.iter().for_each(|shape| reach(shapes, shape, &mut wanted));
        kept.insert("errors".to_owned(), errors.into());
        lines.push(format!("  {}: {}", Value::from(name.as_str()), Value::Object(kept)));
    }
    let operations = lines.join(",\n");
    let mut lines = Vec::new();
    for name in &wanted {
        let shape = shapes.get(name).with_context(|| format!("no shape {name}"))?;
        lines.push(format!("  {}: {}", Value::from(name.as_str()), shape_without_words(shape)));
    }
    Ok(format!("{{\n \"operations\": {{\n{operations}\n }},\n \"shapes\": {{\n{}\n }}\n}}\n", lines.join(",\n")))
}

/// Every shape that `name` is made of, itself included.
fn reach(shapes: &Map<String, Value>, name: &str, wanted: &mut BTreeSet<String>) {
    if !wanted.insert(name.to_owned()) {
        return;
    }
    let Some(shape) = shapes.get(name) else { return };
    let members = shape.get("members").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let parts = ["member", "key", "value"].into_iter().filter_map(|part| shape.get(part));
    for part in members.chain(parts) {
        if let Some(name) = part.get("shape").and_then(Value::as_str) {
            reach(shapes, name, wanted);
        }
    }
}

fn shape_without_words(shape: &Value) -> Value {
    let keep = |value: &Value, keys: &[&str]| -> Map<String, Value> {
        keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(key)?.clone()))).collect()
    };
    let mut kept = keep(shape, &SHAPE_KEYS);
    if let Some(members) = shape.get("members").and_then(Value::as_object) {
        let members = members.iter().map(|(name, member)| (name.clone(), keep(member, &MEMBER_KEYS).into()));
        kept.insert("members".to_owned(), Value::Object(members.collect()));
    }
    for part in ["member", "key", "value"] {
        if let Some(name) = shape.get(part).and_then(|part| part.get("shape")) {
            kept.insert(part.to_owned(), name.clone());
        }
    }
    Value::Object(kept)
}

fn object<'a>(model: &'a Value, key: &str) -> Result<&'a Map<String, Value>> {
    model.get(key).and_then(Value::as_object).with_context(|| format!("no {key}"))
}
