//! Tests in the languages of Lambent's users: the official clients against a real node, and our runtimes' own tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::test::Outcome;
use crate::{functions, run};

/// The Python environment of the client tests, made once for each content of its requirements.
fn venv() -> Result<PathBuf> {
    let (venv, requirements) = (run::target().join("venv"), run::root().join("tests/clients/requirements.txt"));
    let python = venv.join("bin/python");
    stamped(&venv, &[&requirements], || {
        run::check(run::command("python3").args(["-m", "venv"]).arg(&venv))?;
        run::check(run::command(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements))
    })?;
    Ok(python)
}

/// The node modules of the client tests; none where npm is not on this machine.
fn node_modules() -> Result<Option<PathBuf>> {
    let package = run::root().join("tests/clients/node/package.json");
    if run::which("npm").is_none() || run::which("node").is_none() || !package.is_file() {
        return Ok(None);
    }
    let home = run::target().join("node");
    let lock = package.with_file_name("package-lock.json");
    stamped(&home, &[&package, &lock], || {
        std::fs::copy(&package, home.join("package.json"))?;
        let command = if lock.is_file() {
            std::fs::copy(&lock, home.join("package-lock.json"))?;
            "ci"
        } else {
            "install"
        };
        run::check(
            run::command("npm").args([command, "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&home),
        )
    })?;
    Ok(Some(home.join("node_modules")))
}

/// Makes `dir` with `make` unless it was made from the same content of `sources` before.
fn stamped(dir: &Path, sources: &[&Path], make: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut wanted = String::new();
    for source in sources.iter().filter(|source| source.is_file()) {
        wanted += &std::fs::read_to_string(source).with_context(|| format!("reading {}", source.display()))?;
    }
    let stamp = dir.join("stamp");
    if std::fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    make()?;
    Ok(std::fs::write(stamp, wanted)?)
}

/// Real clients against the binary that was just built.
pub fn clients() -> Result<Outcome> {
    let python = venv()?;
    functions::build()?;
    run::cargo(&["build", "--quiet", "--package", "lambent"])?;
    let mut pytest = run::command(&python);
    pytest.args(["-m", "pytest", "-q", "tests/clients"]).env("LAMBENT_BIN", run::target().join("debug/lambent"));
    if let Some(modules) = node_modules()? {
        pytest.env("NODE_PATH", &modules).env("LAMBENT_TEST_NODE_MODULES", modules);
    }
    run::check(&mut pytest)?;
    run::check(run::command(&python).args(["-m", "ruff", "check", "--quiet", "runtimes/python", "tests/clients"]))?;
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
