//! Rules of the repository that no compiler lint knows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run;

/// Clippy over everything, warnings as errors.
pub const CLIPPY: &[&str] = &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];

/// Lines of code (tests, comments and blank lines aside) above which a file surely has two subjects.
const MOST_CODE_LINES: usize = 600;

/// The only crate that may say `unsafe`; every other one forbids it at its root.
const UNSAFE_CRATE: &str = "sandbox";

/// Checks the repository's own rules: file sizes, and that `unsafe` is forbidden where it must be.
pub fn rules() -> Result<()> {
    let mut faults = Vec::new();
    let mut crates: Vec<PathBuf> = entries(&run::root().join("crates"))?;
    crates.push(run::root().join("xtask"));
    for dir in crates {
        let sources = rust_files(&dir.join("src"))?;
        for file in &sources {
            let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            let lines = code_lines(&text);
            if lines > MOST_CODE_LINES {
                faults.push(format!("{}: {lines} lines of code; at most {MOST_CODE_LINES}", file.display()));
            }
        }
        if dir.file_name().is_some_and(|name| name != UNSAFE_CRATE) {
            let roots = ["lib.rs", "main.rs"].map(|name| dir.join("src").join(name));
            for root in roots.iter().filter(|root| root.is_file()) {
                if !std::fs::read_to_string(root)?.contains("#![forbid(unsafe_code)]") {
                    faults.push(format!("{}: lacks #![forbid(unsafe_code)]", root.display()));
                }
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(dir)? {
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "tests.rs")
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Lines that are code: what stands before the tests at the foot of the file, without comments and blank lines.
fn code_lines(text: &str) -> usize {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_tests_are_not_code() {
        assert_eq!(code_lines("//! Doc.\n\nfn a() {}\n// why\nfn b() {}\n#[cfg(test)]\nmod tests {}\n"), 2);
    }
}
