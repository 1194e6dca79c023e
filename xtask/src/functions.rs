//! `cargo xtask functions`: builds the functions under `tests/functions` into `target/functions`, each as a directory ready to be zipped.
//! With `--wasm` also the WebAssembly components: those in Rust are kept beside their sources, those with an interpreter in them are not.
//!
//! They are workspaces of their own, so that what they depend on reaches neither the product's lock file nor its licence check.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;

/// What to build.
#[derive(clap::Args)]
pub struct FunctionsArgs {
    /// The WebAssembly components, too: needs rustup's target wasm32-wasip2, npm and PyPI.
    #[arg(long)]
    wasm: bool,
}

/// Builds what was asked for.
pub fn run(args: &FunctionsArgs) -> Result<()> {
    build()?;
    if args.wasm {
        components()?;
    }
    Ok(())
}

/// What makes a component of JavaScript, and of Python.
const COMPONENTIZE_JS: &str = "@bytecodealliance/componentize-js@0.23.0";
/// It imports this without naming it among its dependencies.
const PREVIEW2_SHIM: &str = "@bytecodealliance/preview2-shim@0.17.4";
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";

fn components() -> Result<()> {
    run::check(run::command("rustup").args(["target", "add", "wasm32-wasip2"]))?;
    for (source, name) in [("tests/functions/wasm", "probe"), ("examples/wasm-rust", "function")] {
        let source = run::root().join(source);
        let cache = run::target().join("functions/build");
        let mut cargo = run::command(run::cargo_path());
        cargo.args(["build", "--release", "--locked", "--target", "wasm32-wasip2", "--manifest-path"]);
        run::check(cargo.arg(source.join("Cargo.toml")).env("CARGO_TARGET_DIR", &cache))?;
        let file = format!("{name}.wasm");
        copy(&cache.join("wasm32-wasip2/release").join(&file), &source.join(&file))?;
    }
    let wit = run::root().join("crates/sandbox/wit");
    let (source, target) = example("wasm-js")?;
    let tools = run::target().join("tools/componentize-js");
    std::fs::create_dir_all(&tools)?;
    let mut npm = run::command("npm");
    npm.args(["install", "--silent", "--no-save", "--prefix"]).arg(&tools).args([COMPONENTIZE_JS, PREVIEW2_SHIM]);
    run::check(&mut npm)?;
    std::fs::write(tools.join("make.mjs"), MAKE_JS)?;
    let mut node = run::command("node");
    node.arg("make.mjs").arg(source.join("function.js")).arg(&wit).arg(&target).current_dir(&tools);
    run::check(&mut node)?;
    let (source, target) = example("wasm-python")?;
    let venv = run::target().join("venv-componentize");
    if !venv.join("bin/componentize-py").is_file() {
        run::check(run::command("python3").args(["-m", "venv"]).arg(&venv))?;
        run::check(run::command(venv.join("bin/python")).args(["-m", "pip", "install", "--quiet", COMPONENTIZE_PY]))?;
    }
    let mut python = run::command(venv.join("bin/componentize-py"));
    python
        .arg("-d")
        .arg(&wit)
        .args(["-w", "function", "componentize", "app", "-p"])
        .arg(&source)
        .arg("-o")
        .arg(&target);
    run::check(&mut python)
}

const MAKE_JS: &str = r#"import { componentize } from "@bytecodealliance/componentize-js";
import { writeFile } from "node:fs/promises";
const [sourcePath, witPath, target] = process.argv.slice(2);
const { component } = await componentize({ sourcePath, witPath, worldName: "function" });
await writeFile(target, component);
"#;

/// An example's source, and where its component goes, beside its manifest.
fn example(name: &str) -> Result<(PathBuf, PathBuf)> {
    let (source, target) = (run::root().join("examples").join(name), run::target().join("functions").join(name));
    std::fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    copy(&source.join("function.toml"), &target.join("function.toml"))?;
    Ok((source, target.join("function.wasm")))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    println!("{}", to.display());
    Ok(())
}

/// Builds them all.
pub fn build() -> Result<()> {
    let built = run::target().join("functions");
    let cache = built.join("build");
    let manifest = run::root().join("tests/functions/rust/Cargo.toml");
    run::check(
        run::command(run::cargo_path())
            .args(["build", "--release", "--locked", "--manifest-path"])
            .arg(manifest)
            .env("CARGO_TARGET_DIR", &cache),
    )?;
    let directory = built.join("rust");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let (from, to) = (cache.join("release/bootstrap"), directory.join("bootstrap"));
    copy(&from, &to)?;
    println!("{}", build_static()?.join("bootstrap").display());
    Ok(())
}

/// Builds the static one, of one file and no crate; its directory.
pub fn build_static() -> Result<PathBuf> {
    let directory = run::target().join("functions/static");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut rustc = run::command(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "panic=abort"]);
    rustc.args(["-C", "strip=symbols", "-o"]).arg(directory.join("bootstrap"));
    run::check(rustc.arg("tests/functions/static/bootstrap.rs"))?;
    Ok(directory)
}
