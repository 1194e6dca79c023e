//! `clone-boto3`: a clone of a published version that imports boto3 and makes a client, beside an ordinary start of the same function.
//!
//! Both go over the signed API, to a container that is not there yet; the handler's first line takes the time. The node ends idle containers at
//! once, so that each call needs another one. The peer is the same code without `SnapStart`, on the same node, call by call.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use http::Method;
use serde_json::{Value, json};

use super::node::{self, Pool};
use super::{ColdArgs, Turns};
use crate::api::{self, Api};
use crate::bench::load::{self, Asked, Target};
use crate::bench::report::{self, Metric};
use crate::bench::servers::Lambent;
use crate::run;

/// The case's name.
pub const NAME: &str = "clone-boto3";
const PACKAGE: &str = "boto3==1.44.5";
const SOURCE: &str = "import time\nimport boto3\n\n\
                      client = boto3.client('s3', region_name='us-east-1', aws_access_key_id='i', aws_secret_access_key='k')\n\n\n\
                      def handler(event, context):\n    return time.time_ns() // 1000\n";
/// The oldest Python that AWS has snapshots for, and younger ones.
const RUNTIMES: [&str; 2] = ["python3.12", "python3.13"];
const WARM_UP: usize = 2;

/// Runs it.
pub fn run(args: &ColdArgs, binary: &Path) -> Result<()> {
    let package = package()?;
    let (mut clones, mut plain) = (Turns::default(), Turns::default());
    for turn in 1..=args.runs {
        eprintln!("turn {turn} of {}: {NAME}", args.runs);
        let (cloned, started) = measure(binary, &package, args.calls)?;
        clones.add(&cloned);
        plain.add(&started);
    }
    let metric = |name: &str, lambent: &[f64], peer: &[f64]| {
        let (lambent, peer) = (lambent.to_vec(), peer.to_vec());
        Metric { case: NAME.to_owned(), name: name.to_owned(), unit: "ms", lambent, peer }
    };
    let metrics = [metric("p50", &clones.p50, &plain.p50), metric("p99", &clones.p99, &plain.p99)];
    report::print("cold", "ordinary start", &metrics, args.json);
    Ok(())
}

/// So many of each, in milliseconds until user code began.
fn measure(binary: &Path, package: &str, calls: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let node = Lambent::start_with(binary, &["fleet.idle=1ms"], Stdio::inherit())?;
    let api = Api { address: node.address, key: node.key.clone() };
    let mut functions = Vec::new();
    for (name, apply_on) in [("clone", "PublishedVersions"), ("plain", "None")] {
        create(&api, name, apply_on, package)?;
        let path = format!("/2015-03-31/functions/{name}/invocations?Qualifier=1");
        functions.push(Target { address: node.address, path, key: Some(node.key.clone()), asked: Asked::Answer });
    }
    let mut samples = [Vec::new(), Vec::new()];
    for call in 0..WARM_UP + calls {
        for (target, samples) in functions.iter().zip(&mut samples) {
            node::settle(&api, Pool::Full)?;
            let (began, _) = load::until_user_code(target)?;
            if call >= WARM_UP {
                samples.push(began);
            }
        }
    }
    let [clones, plain] = samples;
    Ok((clones, plain))
}

/// Makes a function and its first version, and waits until that is what it will be.
fn create(api: &Api, name: &str, apply_on: &str, package: &str) -> Result<()> {
    let mut last = None;
    for runtime in RUNTIMES {
        let wanted = json!({
            "FunctionName": name,
            "Runtime": runtime,
            "MemorySize": node::MEMORY_OF_ONE_CPU,
            "Timeout": 30,
            "SnapStart": { "ApplyOn": apply_on },
            "Code": { "ZipFile": package },
        });
        last = api::block_on(api.create(wanted)).err();
        if last.is_none() {
            break;
        }
    }
    if let Some(error) = last {
        return Err(error.context("this machine has no Python that AWS has snapshots for"));
    }
    api.command(Method::POST, &format!("/2015-03-31/functions/{name}/versions"), &json!({}))?;
    let path = format!("/2015-03-31/functions/{name}/configuration?Qualifier=1");
    loop {
        let found = api.command(Method::GET, &path, &Value::Null)?;
        let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        match (text("/State"), text("/SnapStart/ApplyOn"), text("/SnapStart/OptimizationStatus")) {
            ("Pending", ..) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "nothing tells when another process has taken its snapshot"
                )]
                std::thread::sleep(node::LOOK_EVERY);
            }
            ("Active", "None", _) | ("Active", _, "On") => return Ok(()),
            _ => bail!("{name} cannot be cloned: {found}"),
        }
    }
}

/// The function and what it needs, zipped, as the API takes it.
fn package() -> Result<String> {
    let directory = run::target().join("bench/boto3");
    if !directory.join("boto3").is_dir() {
        std::fs::create_dir_all(&directory)?;
        let mut pip = run::command("python3");
        let quietly = ["-m", "pip", "install", "--quiet", "--no-compile", "--root-user-action", "ignore", "--target"];
        run::check(pip.args(quietly).arg(&directory).arg(PACKAGE))?;
    }
    std::fs::write(directory.join("app.py"), SOURCE)?;
    let mut package = zip::ZipWriter::new(Cursor::new(Vec::new()));
    add(&mut package, &directory, &directory)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(package.finish()?.into_inner()))
}

fn add(package: &mut zip::ZipWriter<Cursor<Vec<u8>>>, root: &Path, directory: &Path) -> Result<()> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root)?.to_str().context("a name that is no text")?;
        // Descriptions of services that the function does not use are most of it.
        let depth = name.split('/').count();
        if depth == 3 && name.starts_with("botocore/data/") && path.is_dir() && name != "botocore/data/s3" {
            continue;
        }
        if path.is_dir() {
            add(package, root, &path)?;
        } else {
            package.start_file(name, zip::write::SimpleFileOptions::default().unix_permissions(0o644))?;
            package.write_all(&std::fs::read(&path)?)?;
        }
    }
    Ok(())
}
