//! Tests in the languages of Lambent's users: the official clients against a real node, and our runtimes' own tests.

use anyhow::Result;

use crate::test::Outcome;
use crate::{functions, run};

/// Brings what the client tests run on into the target folder, or only the named parts of it.
pub fn setup(parts: &[&str]) -> Result<()> {
    run::check(run::command("python3").arg("tests/clients/setup").args(parts).env("CARGO_TARGET_DIR", run::target()))
}

/// Real clients against the binary that was just built.
pub fn clients() -> Result<Outcome> {
    setup(&[])?;
    let python = run::target().join("venv/bin/python");
    run::check(run::command(&python).args(["-m", "ruff", "check", "--quiet", "runtimes/python", "tests/clients"]))?;
    functions::build()?;
    let mut pytest = run::command(&python);
    pytest.args(["-m", "pytest", "-q", "tests/clients"]).env("LAMBENT_BIN", run::lambent_for_tests()?);
    run::check(&mut pytest)?;
    Ok(Outcome::Passed)
}

/// The Python runtime needs nothing but an interpreter.
pub fn python_runtime() -> Result<Outcome> {
    let mut unittest = run::command("python3");
    run::check(unittest.args(["-m", "unittest", "discover", "--start-directory", "runtimes/python/tests"]))?;
    Ok(Outcome::Passed)
}

/// The Node.js runtime's tests, where Node.js is there.
pub fn node_runtime() -> Result<Outcome> {
    if run::which("node").is_none() {
        return Ok(Outcome::Skipped("node is not on this machine".to_owned()));
    }
    let tests = run::root().join("runtimes/node/tests");
    let mut files = Vec::new();
    for entry in tests.read_dir().into_iter().flatten() {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(".test.")) {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Ok(Outcome::Skipped("runtimes/node has no tests".to_owned()));
    }
    run::check(run::command("node").arg("--test").args(files))?;
    Ok(Outcome::Passed)
}
