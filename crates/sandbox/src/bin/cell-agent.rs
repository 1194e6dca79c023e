//! The agent and the wasm programs by themselves, for programs that cannot be their own (test binaries, whose `main` is not theirs).

use std::process::ExitCode;

fn main() -> ExitCode {
    lambent_sandbox::wasm::main_if_asked();
    lambent_sandbox::agent::main()
}
