//! `lambent deploy`: a directory or a zip becomes a function, or a function's new code and configuration.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::json;

use super::{WrongUsage, output};
use crate::cli::DeployArgs;
use crate::client::{Client, NewFunction};
use crate::config::Env;
use crate::package::{self, MANIFEST, Manifest};

/// Deploys, waits until the function is ready, and says how to call it.
pub async fn run(args: &DeployArgs, env: &dyn Env, json: bool) -> Result<()> {
    let (zip, manifest) = read(&args.source)?;
    let new = function(args, &manifest, zip)?;
    let client = Client::new(&args.client, env)?;
    let configuration = client.deploy(&new).await?;
    let url = if args.url || manifest.url { Some(client.public_url(&new.name).await?) } else { None };
    if json {
        return output::json(&json!({"function": configuration, "url": url}));
    }
    let arn = configuration.get("FunctionArn").and_then(|arn| arn.as_str()).unwrap_or(&new.name);
    output::line(&format!("deployed {arn}"))?;
    if let Some(url) = url {
        output::line(&format!("url      {url}"))?;
    }
    output::line(&format!("call it  lambent invoke {} --payload '{{}}'", new.name))
}

/// The package and what its author wrote down about it.
fn read(source: &Path) -> Result<(Bytes, Manifest)> {
    if source.is_dir() {
        return Ok((package::zip_directory(source)?, Manifest::read(source)?));
    }
    let zip = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    Ok((zip.into(), Manifest::default()))
}

/// Flags before manifest before what the files tell.
fn function(args: &DeployArgs, manifest: &Manifest, zip: Bytes) -> Result<NewFunction, WrongUsage> {
    let dir = args.source.canonicalize().unwrap_or_else(|_| args.source.clone());
    let stem = dir.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = args.name.clone().or_else(|| manifest.name.clone()).or(stem);
    let name = name.ok_or_else(|| WrongUsage("the function needs a name: give --name".to_owned()))?;
    let bootstrap = dir.join("bootstrap").is_file();
    let missing = |what: &str, example: &str| {
        WrongUsage(format!(
            "{name} needs a {what}: give --{what} {example}, or write `{what} = \"{example}\"` in {MANIFEST}"
        ))
    };
    let runtime = args.runtime.clone().or_else(|| manifest.runtime.clone());
    let runtime = runtime.or_else(|| bootstrap.then(|| "provided.al2023".to_owned()));
    let runtime = runtime.ok_or_else(|| missing("runtime", "python3.11"))?;
    let handler = args.handler.clone().or_else(|| manifest.handler.clone());
    let handler = handler.or_else(|| runtime.starts_with("provided").then(|| "bootstrap".to_owned()));
    let handler = handler.ok_or_else(|| missing("handler", "app.handler"))?;
    let mut environment = manifest.environment.clone();
    for pair in &args.env {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| WrongUsage(format!("--env takes KEY=VALUE, not {pair:?}")))?;
        environment.get_or_insert_with(BTreeMap::new).insert(key.to_owned(), value.to_owned());
    }
    Ok(NewFunction {
        name,
        runtime,
        handler,
        zip,
        memory_mib: args.memory.or(manifest.memory_mib),
        timeout_secs: args.timeout.or(manifest.timeout_secs),
        environment,
        publish: args.publish,
    })
}
