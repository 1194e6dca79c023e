//! The functions of `examples/`, carried in the binary so that the demo needs no checkout.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::package::{self, MANIFEST, Manifest};

/// Files of one example: path and content.
type Files = &'static [(&'static str, &'static [u8])];

macro_rules! example {
    ($dir:literal, $($file:literal),+) => {
        &[$(($file, include_bytes!(concat!("../../../../../examples/", $dir, "/", $file)))),+]
    };
}

const PYTHON: Files = example!("python-hello", "function.toml", "app.py");
const NODE: Files = example!("node-hello", "function.toml", "index.mjs");
const SHELL: Files = example!("shell-hello", "function.toml", "bootstrap");
const RUST: Files = example!("rust-hello", "function.toml", "Cargo.toml", "Cargo.lock", "src/main.rs");

/// What runs where a `provided` function is asked for.
const BOOTSTRAP: &str = "bootstrap";

/// One example.
pub struct Example {
    /// Its directory's name.
    pub name: &'static str,
    files: Files,
    /// A program without which it cannot be built or run.
    needs: Option<&'static str>,
}

/// All of them, in the order of the table.
pub const ALL: &[Example] = &[
    Example { name: "python-hello", files: PYTHON, needs: None },
    Example { name: "node-hello", files: NODE, needs: None },
    Example { name: "shell-hello", files: SHELL, needs: Some("curl") },
    Example { name: "rust-hello", files: RUST, needs: Some("cargo") },
];

impl Example {
    /// Its settings.
    pub fn manifest(&self) -> Result<Manifest> {
        let text =
            self.files.iter().find(|(name, _)| *name == MANIFEST).map(|(_, content)| *content).unwrap_or_default();
        Manifest::parse(std::str::from_utf8(text)?)
    }

    /// The program that this machine lacks for it.
    pub fn missing(&self, path: Option<&str>) -> Option<&'static str> {
        self.needs.filter(|program| find(program, path).is_none())
    }

    /// Its package; what must be compiled is compiled below `scratch`.
    pub async fn package(&self, scratch: &Path) -> Result<Bytes> {
        if self.needs != Some("cargo") {
            return package::zip_files(self.files, &[BOOTSTRAP]);
        }
        let program = self.compile(scratch).await?;
        let content = std::fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
        package::zip_files(&[(BOOTSTRAP, &content)], &[BOOTSTRAP])
    }

    async fn compile(&self, scratch: &Path) -> Result<PathBuf> {
        let dir = scratch.join(self.name);
        for (name, content) in self.files {
            let path = dir.join(name);
            // Left alone when unchanged, so that cargo has nothing to do the second time.
            if std::fs::read(&path).ok().as_deref() != Some(*content) {
                std::fs::create_dir_all(path.parent().unwrap_or(&dir))?;
                std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        // Who shares one target directory among all builds gets that.
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| dir.join("target"), PathBuf::from);
        let target = std::path::absolute(target)?;
        let build = tokio::process::Command::new("cargo")
            .args(["build", "--release", "--locked", "--quiet"])
            .current_dir(&dir)
            .env("CARGO_TARGET_DIR", &target)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start cargo")?;
        if !build.status.success() {
            let text = String::from_utf8_lossy(&build.stderr);
            bail!("cargo could not build it: {}", text.lines().last().unwrap_or_default());
        }
        Ok(target.join("release").join(BOOTSTRAP))
    }
}

/// Where a program is, searched as a shell would.
fn find(program: &str, path: Option<&str>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_example_says_how_it_runs() {
        for example in ALL {
            let manifest = example.manifest().unwrap();
            assert_eq!(manifest.name.as_deref(), Some(example.name));
            assert!(manifest.runtime.is_some() && manifest.handler.is_some(), "{}", example.name);
        }
    }

    #[test]
    fn a_program_that_is_nowhere_is_missing() {
        let example = Example { name: "x", files: &[], needs: Some("no-such-program") };
        assert_eq!(example.missing(Some("/usr/bin:/bin")), Some("no-such-program"));
        assert_eq!(Example { needs: None, ..example }.missing(None), None);
    }
}
