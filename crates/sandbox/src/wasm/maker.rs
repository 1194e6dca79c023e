//! Compiling, seen from the node: a cell, the compile program in it, its output in a file.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use lambent_model::InstanceId;
use lambent_model::function::Network;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use super::compile::MODULE;
use super::{COMPILE_ARGUMENT, Flavour, PROGRAM};
use crate::port::{CellSpec, ExitStatus, Mount, ProcessSpec, Sandbox};
use crate::{Error, error::step};

/// Memory of the compile program. Interpreters as components (30 MiB and more) need half of it.
const MEMORY_MIB: u32 = 3_072;
/// How long it may take.
const WITHIN: Duration = Duration::from_secs(180);
/// Threads: the compiler's, one a processor, and the runtime's.
const PROCESSES: u32 = 64;
/// Most machine code that is kept of one module.
const CODE_BYTES: u64 = 1 << 30;
/// Longest reason that is read.
const REASON_BYTES: u64 = 4_096;

/// Machine code in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The module is at fault.
    #[error("the WebAssembly module cannot be used: {reason}")]
    Refused {
        /// What is wrong with it.
        reason: String,
    },
    /// The compile program could not run.
    #[error("the WebAssembly module could not be compiled")]
    Sandbox(#[source] Error),
}

/// Compiles the module at `module` into `target`, which must not exist. `program` calls [`super::main_if_asked`] in its `main`.
pub async fn compile(
    sandbox: &dyn Sandbox,
    program: &Path,
    module: &Path,
    flavour: Flavour,
    target: &Path,
) -> Result<Compiled, CompileError> {
    let mounts = [(program.to_owned(), PathBuf::from(PROGRAM)), (module.to_owned(), PathBuf::from(MODULE))];
    let spec = CellSpec {
        id: InstanceId::random(),
        mounts: mounts.map(|(source, target)| Mount { source, target }).to_vec(),
        memory_mib: MEMORY_MIB,
        milli_cpus: super::node::all_processors(),
        ephemeral_mib: 1,
        processes: PROCESSES,
        network: Network::None,
    };
    let cell = sandbox.create(spec).await.map_err(CompileError::Sandbox)?;
    let work = tokio::time::timeout(WITHIN, async {
        let argv =
            [cell.inside_path(PROGRAM), COMPILE_ARGUMENT.into(), flavour.name().into(), cell.inside_path(MODULE)];
        let process =
            ProcessSpec { argv: argv.to_vec(), env: Vec::new(), cwd: "/".into(), log_pipe: false, order_pipe: false };
        let process = cell.spawn(process).await.map_err(CompileError::Sandbox)?;
        let (code, reason) = tokio::join!(save(process.stdout, target), reason(process.stderr));
        let status = process.exit.await.map_err(|_| CompileError::Sandbox(Error::Ended))?;
        judge(status, code.map_err(|error| CompileError::Sandbox(step("write compiled code")(error)))?, reason)
    });
    let late = || refused(format!("it takes longer than {} seconds to compile", WITHIN.as_secs()));
    let outcome = work.await.unwrap_or_else(|_| Err(late()));
    cell.destroy().await;
    if outcome.is_err() {
        let _ = std::fs::remove_file(target);
    }
    outcome
}

fn refused(reason: String) -> CompileError {
    CompileError::Refused { reason }
}

fn judge(status: ExitStatus, code: Option<Compiled>, reason: String) -> Result<Compiled, CompileError> {
    match (status, code) {
        (ExitStatus::Code(0), Some(code)) => Ok(code),
        (ExitStatus::Code(0), None) => Err(refused(format!("it compiles to more than {} MiB", CODE_BYTES >> 20))),
        (ExitStatus::OutOfMemory, _) => Err(refused(format!("it takes more than {MEMORY_MIB} MiB to compile"))),
        (ExitStatus::Code(_), _) if !reason.is_empty() => Err(refused(reason)),
        (ExitStatus::Code(code), _) => Err(refused(format!("the compiler gave up (exit status {code})"))),
        // A stack that ran out, most likely.
        (ExitStatus::Signal(signal), _) => Err(refused(format!("the compiler crashed on it (signal {signal})"))),
    }
}

/// Writes what comes to a file; none where it is too much, all of which is read and dropped then.
async fn save(from: OwnedFd, target: &Path) -> std::io::Result<Option<Compiled>> {
    let mut from = Receiver::from_owned_fd(from)?;
    let mut file = std::fs::File::create_new(target)?;
    let (mut context, mut bytes, mut buffer) = (Context::new(&SHA256), 0, vec![0; 64 << 10]);
    loop {
        let count = from.read(&mut buffer).await?;
        let read = buffer.get(..count).unwrap_or_default();
        if read.is_empty() {
            break;
        }
        bytes += read.len() as u64;
        if bytes <= CODE_BYTES {
            context.update(read);
            // Into the page cache: microseconds a piece.
            file.write_all(read)?;
        }
    }
    file.sync_all()?;
    Ok((bytes <= CODE_BYTES).then(|| Compiled { sha256: hex::encode(context.finish()), bytes }))
}

/// What the program says; nothing but printable text of one paragraph, whatever it wrote.
async fn reason(from: OwnedFd) -> String {
    let Ok(from) = Receiver::from_owned_fd(from) else { return String::new() };
    let mut bytes = Vec::new();
    let mut from = from.take(REASON_BYTES);
    let _ = from.read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut from.into_inner(), &mut tokio::io::sink()).await;
    let text = String::from_utf8_lossy(&bytes);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
