//! What the bench runs: the emulator, the functions, Lambent itself. Everything ends up below `target/`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{clients, functions, run};

/// The official Python client.
const CLIENT_PACKAGE: &str = "awslambdaric==4.2.2";

/// A function as a directory whose `bootstrap` starts it.
pub struct Function {
    /// The bench's case.
    pub case: &'static str,
    /// What is zipped for Lambent, and run in place by the emulator.
    pub dir: PathBuf,
    /// The handler's name, as both are told it.
    pub handler: &'static str,
}

/// The emulator's binary, which ships with the SAM command line.
pub fn emulator() -> Result<PathBuf> {
    let venv = run::target().join("venv-sam");
    let kind = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    };
    let name = format!("aws-lambda-rie-{kind}");
    if let Some(found) = find(&venv, &name) {
        return Ok(found);
    }
    clients::setup(&["sam"])?;
    find(&venv, &name).with_context(|| format!("the SAM command line holds no {name}"))
}

fn find(venv: &Path, name: &str) -> Option<PathBuf> {
    let libraries = std::fs::read_dir(venv.join("lib")).ok()?;
    let inside = |dir: std::fs::DirEntry| dir.path().join("site-packages/samcli/local/rapid").join(name);
    libraries.flatten().map(inside).find(|path| path.is_file())
}

/// A Python handler under the official client, on the machine's own interpreter, started by a shell line.
pub fn python() -> Result<Function> {
    let dir = run::target().join("bench/python");
    let python = interpreter()?;
    if !dir.join("awslambdaric").is_dir() {
        std::fs::create_dir_all(&dir)?;
        let mut pip = run::command(run::target().join("venv-sam/bin/python"));
        run::check(pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&dir).arg(CLIENT_PACKAGE))?;
    }
    std::fs::write(dir.join("app.py"), "def handler(event, context):\n    return event\n")?;
    let bootstrap = dir.join("bootstrap");
    let script = format!(
        "#!/bin/sh\nhere=$(dirname \"$0\")\ncd \"$here\"\nexport PYTHONPATH=\"$here\"\nexec {} -m awslambdaric app.handler\n",
        python.display()
    );
    std::fs::write(&bootstrap, script)?;
    std::fs::set_permissions(&bootstrap, std::fs::Permissions::from_mode(0o755))?;
    Ok(Function { case: "python-awslambdaric", dir, handler: "app.handler" })
}

/// The system's interpreter of the version that the bench's environment was made of: cells see it at the same path, and what was
/// compiled for one runs under the other.
fn interpreter() -> Result<PathBuf> {
    let shown = run::command(run::target().join("venv-sam/bin/python"))
        .args(["-c", "import sys; print('python%d.%d' % sys.version_info[:2])"])
        .output()
        .context("cannot start the bench's python")?;
    let path = Path::new("/usr/bin").join(String::from_utf8_lossy(&shown.stdout).trim());
    if !path.is_file() {
        bail!("{} does not exist; a cell sees no interpreter outside of /usr", path.display());
    }
    Ok(path)
}

/// The test function on the official Rust crate.
pub fn rust() -> Result<Function> {
    functions::build()?;
    Ok(Function { case: "rust-lambda-runtime", dir: run::target().join("functions/rust"), handler: "bootstrap" })
}

/// Lambent, built for release.
pub fn lambent() -> Result<PathBuf> {
    run::cargo(&["build", "--release", "--package", "lambent"])?;
    Ok(run::target().join("release/lambent"))
}
