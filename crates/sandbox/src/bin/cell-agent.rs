//! The agent by itself, for programs that cannot be their own (test binaries, whose `main` is not theirs).

use std::process::ExitCode;

fn main() -> ExitCode {
    lambent_sandbox::agent::main()
}
