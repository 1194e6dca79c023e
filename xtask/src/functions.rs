//! `cargo xtask functions`: builds the functions under `tests/functions` into `target/functions`, each as a directory ready to be zipped.
//!
//! They are workspaces of their own, so that what they depend on reaches neither the product's lock file nor its licence check.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::run;

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
    std::fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    println!("{}", to.display());
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
