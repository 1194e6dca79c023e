//! Configuration of a node: `lambent.toml` < `LAMBENT_*` environment < flags.
//!
//! Each section is a struct that reads its own keys through a [`Reader`], so a key's name, type and default stand in one place and
//! everything else follows from it: the environment variable of `urls.listen` is `LAMBENT_URLS_LISTEN`, the list of known keys is
//! what the sections ask for, and `lambent config` prints what the reader answered. A key nobody asked for is refused, and so are
//! contradictions between keys, before any port is opened.

mod env;
mod reader;
mod sections;
mod services;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use env::{Env, ProcessEnv};
pub use reader::{Effective, Error};
pub use sections::{Config, Fleet, LogFormat, Pool, SandboxKind};
pub use services::{Password, Place};

use crate::cli::ServeArgs;
use reader::Reader;

/// The file that is read where none is named.
const DEFAULT_FILE: &str = "lambent.toml";

/// Which defaults apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A node that stays: state under `/var/lib`.
    Serve,
    /// A node to play with: state under the working directory.
    Demo,
}

/// The configuration in force, and where each value came from.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The same, key by key, with their origins.
    pub effective: Vec<Effective>,
}

/// Reads all sources and joins them.
pub fn load(args: &ServeArgs, env: &dyn Env, purpose: Use) -> Result<Loaded> {
    let file = match &args.config {
        Some(path) => Some(read_file(path)?),
        None => Path::new(DEFAULT_FILE).is_file().then(|| read_file(Path::new(DEFAULT_FILE))).transpose()?,
    };
    let mut loaded = join(file, env, &flags(args)?, purpose)?;
    // What makes cells, and what builds examples, has another working directory than this process.
    loaded.config.data_dir =
        std::path::absolute(&loaded.config.data_dir).context("cannot tell where the data directory is")?;
    Ok(loaded)
}

/// Joins the sources; the pure part of [`load`].
fn join(
    file: Option<(PathBuf, toml::Table)>,
    env: &dyn Env,
    flags: &[(String, String)],
    purpose: Use,
) -> Result<Loaded, Error> {
    let mut reader = Reader::new(file, env, flags);
    let config = Config::read(&mut reader, purpose)?;
    let effective = reader.finish()?;
    config.check()?;
    Ok(Loaded { config, effective })
}

fn read_file(path: &Path) -> Result<(PathBuf, toml::Table)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    Ok((path.to_owned(), table))
}

/// The flags that were given, as configuration keys.
fn flags(args: &ServeArgs) -> Result<Vec<(String, String)>> {
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    let named = [
        ("api.listen", args.listen.map(|address| address.to_string())),
        ("urls.listen", args.listen_urls.map(|address| address.to_string())),
        ("data_dir", args.data_dir.as_ref().map(path)),
        ("account", args.account.clone()),
        ("region", args.region.clone()),
        ("sandbox.kind", args.sandbox.clone()),
        ("aws.endpoint", args.aws_endpoint.clone()),
    ];
    let mut flags: Vec<(String, String)> =
        named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    for pair in &args.set {
        match pair.split_once('=') {
            Some((key, value)) => flags.push((key.to_owned(), value.to_owned())),
            None => bail!("--set takes KEY=VALUE, not {pair:?}"),
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests;
