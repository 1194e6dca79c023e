//! Machine code of components, compiled once.
//!
//! ```text
//! DATA/wasm/code/<engine and processor>/<key>.code      machine code
//!                                       <key>.sha256    its digest, taken while it came out of the compiler
//! ```
//!
//! The key is made of the package's digest, the handler that names a file in it, and how it is compiled; the directory names the engine,
//! its configuration and this machine's processor, and directories of others are removed at start. A file appears under its name when it
//! is whole, its digest first. Host processes have links of their own to what they run, so removing is always safe.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use lambent_model::{Digest, FunctionVersion};
use lambent_sandbox::Sandbox;
use lambent_sandbox::wasm::{self, CACHE_KEY, CompileError, Flavour};
use lambent_store::{Blobs, package};
use tokio::sync::{OnceCell, Semaphore};

use super::options::{Code, Options};
use crate::PrepareError;

/// Components that are compiled at the same time; each may keep all processors and gigabytes of memory busy.
const COMPILERS: usize = 2;

/// The cache.
pub(super) struct Cache {
    directory: PathBuf,
    program: PathBuf,
    limit: u64,
    sandbox: Arc<dyn Sandbox>,
    blobs: Arc<dyn Blobs>,
    compilers: Semaphore,
    /// What was asked for since the start. Whoever comes meanwhile waits for the first one's work.
    entries: Mutex<HashMap<String, Arc<OnceCell<Code>>>>,
}

impl Cache {
    /// Opens the cache below `root` and removes what is of no use any more.
    pub(super) async fn open(
        root: &Path,
        program: PathBuf,
        limit: u64,
        sandbox: Arc<dyn Sandbox>,
        blobs: Arc<dyn Blobs>,
    ) -> Result<Self, PrepareError> {
        let parent = root.join("code");
        let directory = parent.join(format!("{CACHE_KEY}-{}", processor()));
        let made = directory.clone();
        let done = tokio::task::spawn_blocking(move || tidy(&parent, &made)).await;
        done.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into())).map_err(|source| PrepareError::Io {
            step: "open the cache of machine code",
            path: directory.clone(),
            source,
        })?;
        let (compilers, entries) = (Semaphore::new(COMPILERS), Mutex::default());
        Ok(Self { directory, program, limit, sandbox, blobs, compilers, entries })
    }

    /// The machine code of a version, compiled if it is not there.
    pub(super) async fn of(&self, version: &FunctionVersion, options: &Options) -> Result<Code, PrepareError> {
        let key = key(version, options.flavour());
        let cell = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(entries.entry(key.clone()).or_default())
        };
        let code = cell.get_or_try_init(async || match self.found(&key) {
            Some(code) => Ok(code),
            None => self.make(&key, version, options.flavour()).await,
        });
        let code = code.await?.clone();
        if code.path.exists() {
            return Ok(code);
        }
        // Evicted since.
        self.forget(&key);
        self.make(&key, version, options.flavour()).await
    }

    /// Removes the code of a version.
    pub(super) async fn remove(&self, version: &FunctionVersion, options: &Options) {
        let key = key(version, options.flavour());
        self.forget(&key);
        for path in [self.code(&key), self.digest(&key)] {
            let _ = tokio::fs::remove_file(path).await;
        }
    }

    fn forget(&self, key: &str) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn code(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.code"))
    }

    fn digest(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.sha256"))
    }

    /// What an earlier process compiled.
    fn found(&self, key: &str) -> Option<Code> {
        let path = self.code(key);
        let sha256 = path.is_file().then(|| std::fs::read_to_string(self.digest(key)).ok()).flatten()?;
        Some(Code { path, sha256 })
    }

    async fn make(&self, key: &str, version: &FunctionVersion, flavour: Flavour) -> Result<Code, PrepareError> {
        let digest = version.code.digest;
        let found = self.blobs.path(digest).await.map_err(|source| PrepareError::Store { digest, source })?;
        let blob = found.ok_or(PrepareError::Missing { digest })?;
        let _turn = self.compilers.acquire().await;
        let io = |step: &'static str| {
            let path = self.directory.clone();
            move |source| PrepareError::Io { step, path, source }
        };
        let aside =
            tempfile::Builder::new().prefix(".making-").tempdir_in(&self.directory).map_err(io("make a directory"))?;
        let (module, target) = (aside.path().join("module.wasm"), aside.path().join("code"));
        let (handler, extracted) = (version.handler.clone(), module.clone());
        let extract = move || extract(digest, &blob, handler.as_deref(), &extracted);
        let extracted = tokio::task::spawn_blocking(extract).await;
        extracted.unwrap_or_else(|_| Err(io("read the component")(io::ErrorKind::Interrupted.into())))?;
        let compiled = wasm::compile(self.sandbox.as_ref(), &self.program, &module, flavour, &target).await;
        let compiled = compiled.map_err(|error| match error {
            CompileError::Refused { reason } => PrepareError::Component { digest, reason },
            CompileError::Sandbox(source) => PrepareError::Compiler(source),
        })?;
        let keep = || {
            std::fs::write(aside.path().join("sha256"), &compiled.sha256)?;
            std::fs::rename(aside.path().join("sha256"), self.digest(key))?;
            std::fs::rename(&target, self.code(key))
        };
        keep().map_err(io("keep machine code"))?;
        self.evict(key);
        tracing::info!(function = %version.arn, bytes = compiled.bytes, "compiled a WebAssembly component");
        Ok(Code { path: self.code(key), sha256: compiled.sha256 })
    }

    /// Removes what was made longest ago until the cache is within its bound.
    fn evict(&self, but: &str) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "code"))
            .filter_map(|entry| Some((entry.metadata().ok()?, entry.path())))
            .collect();
        files.sort_by_key(|(meta, _)| meta.modified().ok());
        let mut bytes: u64 = files.iter().map(|(meta, _)| meta.len()).sum();
        for (meta, path) in files {
            if bytes <= self.limit {
                return;
            }
            if path != self.code(but) && std::fs::remove_file(&path).is_ok() {
                bytes -= meta.len();
            }
        }
    }
}

/// Writes the component of a package to a file that a cell's user can read; blocking.
fn extract(digest: Digest, blob: &Path, handler: Option<&str>, target: &Path) -> Result<(), PrepareError> {
    let io = |step: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| PrepareError::Io { step, path, source }
    };
    let package = std::fs::File::open(blob).map_err(io("open", blob))?;
    let component = package::component::read(package, handler).map_err(|error| match error {
        package::Error::Io(source) => io("read", blob)(source),
        error => PrepareError::Component { digest, reason: error.to_string() },
    })?;
    std::fs::write(target, component).map_err(io("write", target))
}

/// Makes the directory, and removes those of other engines and what a crash left half made; blocking.
fn tidy(parent: &Path, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for entry in std::fs::read_dir(parent)?.chain(std::fs::read_dir(directory)?).flatten() {
        let path = entry.path();
        if path.is_dir() && path != directory {
            std::fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// Names what is compiled, and how.
fn key(version: &FunctionVersion, flavour: Flavour) -> String {
    let mut context = Context::new(&SHA256);
    context.update(version.code.digest.as_bytes());
    context.update(flavour.name().as_bytes());
    context.update(version.handler.as_deref().unwrap_or_default().as_bytes());
    hex(context.finish().as_ref())
}

/// Names this machine's processor: code uses whatever instructions it has.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features")).unwrap_or_default();
    let mut context = Context::new(&SHA256);
    context.update(std::env::consts::ARCH.as_bytes());
    context.update(flags.as_bytes());
    hex(context.finish().as_ref().get(..8).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
