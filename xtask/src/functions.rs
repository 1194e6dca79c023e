//! `cargo xtask functions`: builds the functions under `tests/functions` into `target/functions`, each as a directory ready to be zipped.
//!
//! They are workspaces of their own, so that what they depend on reaches neither the product's lock file nor its licence check.

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
    Ok(())
}
