//! The compile program: a component in, machine code out.
//!
//! It runs in a cell of its own with bounds on memory, processors and time and without network, because the component is a stranger's
//! and a compiler is a large thing to feed. The module lies at [`MODULE`]; code goes to standard output, a reason to standard error.
//! What it says it has compiled is believed only as far as the cell in which it will run goes.

use std::io::{self, Write as _};
use std::process::ExitCode;

use wasmtime::component::Component;

use super::engine::{self, Flavour};
use super::host::linker;

/// Where the module is inside the cell.
pub const MODULE: &str = "/var/task/module.wasm";

/// Longest reason that is said.
const REASON_BYTES: usize = 2_000;

/// Ends with 0 and the code on standard output, or with 1 and a reason for people on standard error.
pub(super) fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let flavour = arguments.next().as_deref().and_then(Flavour::parse).unwrap_or_default();
    let module = arguments.next().unwrap_or_else(|| MODULE.to_owned());
    match compile(&module, flavour) {
        Ok(code) => match io::stdout().lock().write_all(&code) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("the code could not be handed over: {error}")),
        },
        Err(reason) => fail(&reason),
    }
}

fn fail(reason: &str) -> ExitCode {
    let mut reason = reason.to_owned();
    let cut = (0..=REASON_BYTES.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    reason.truncate(cut);
    eprint!("{reason}");
    ExitCode::FAILURE
}

/// Compiles, and tries whether everything the component imports is there and whether it exports something that can be called.
fn compile(module: &str, flavour: Flavour) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(module).map_err(|error| format!("the module cannot be read: {error}"))?;
    lambent_model::wasm::check(&bytes).map_err(str::to_owned)?;
    let engine = engine::compiler(flavour).map_err(|error| format!("{error:#}"))?;
    let component = Component::from_binary(&engine, &bytes).map_err(|error| format!("{error:#}"))?;
    linker::Callee::of(&engine, &component).map_err(|error| format!("{error:#}"))?;
    component.serialize().map_err(|error| format!("{error:#}"))
}
