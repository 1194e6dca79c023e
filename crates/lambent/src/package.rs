//! Turning a directory into a code package, and reading the `function.toml` that says how it runs.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::Deserialize;
use zip::write::SimpleFileOptions;

/// The file that says how a directory runs; it is not packed.
pub const MANIFEST: &str = "function.toml";
/// Directories that hold no code.
const NOT_PACKED: &[&str] = &[".git", "__pycache__", "target"];
/// Most files of a package; more is surely the wrong directory.
const MOST_FILES: usize = 50_000;

/// How a function runs, as its author wrote it down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The function's name; default: the directory's.
    pub name: Option<String>,
    /// E.g. `python3.11`.
    pub runtime: Option<String>,
    /// E.g. `app.handler`.
    pub handler: Option<String>,
    /// Memory limit.
    pub memory_mib: Option<u32>,
    /// Time-out.
    pub timeout_secs: Option<u32>,
    /// Environment variables.
    pub environment: Option<BTreeMap<String, String>>,
    /// Whether it gets a URL that anyone may call.
    #[serde(default)]
    pub url: bool,
}

impl Manifest {
    /// The manifest in `dir`, or an empty one.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not usable", path.display()))
    }

    /// Reads a manifest's text.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }
}

/// One file of a package.
struct Entry {
    name: String,
    executable: bool,
    content: Vec<u8>,
}

/// Packs the files under `dir`, links followed. Equal contents give equal packages.
pub fn zip_directory(dir: &Path) -> Result<Bytes> {
    let mut files = Vec::new();
    collect(dir, dir, &mut files)?;
    if files.is_empty() {
        bail!("{} has no files", dir.display());
    }
    files.sort();
    let entries = files.into_iter().map(|path| {
        let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
        let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let executable = std::fs::metadata(&path)?.permissions().mode() & 0o111 != 0;
        Ok(Entry { name, executable, content })
    });
    write_zip(entries)
}

/// Packs files that are held in memory; `executable` names those that can be run.
pub fn zip_files(files: &[(&str, &[u8])], executable: &[&str]) -> Result<Bytes> {
    let entries = files.iter().filter(|(name, _)| *name != MANIFEST).map(|(name, content)| {
        Ok(Entry { name: (*name).to_owned(), executable: executable.contains(name), content: content.to_vec() })
    });
    write_zip(entries)
}

fn write_zip(entries: impl Iterator<Item = Result<Entry>>) -> Result<Bytes> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for entry in entries {
        let entry = entry?;
        let mode = if entry.executable { 0o755 } else { 0o644 };
        let options =
            SimpleFileOptions::DEFAULT.compression_method(zip::CompressionMethod::Deflated).unix_permissions(mode);
        writer.start_file(&entry.name, options).with_context(|| format!("cannot pack {}", entry.name))?;
        writer.write_all(&entry.content)?;
    }
    Ok(writer.finish()?.into_inner().into())
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !NOT_PACKED.contains(&name.as_str()) {
                collect(root, &path, files)?;
            }
        } else if !(dir == root && name == MANIFEST) {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            bail!("{} has more than {MOST_FILES} files", root.display());
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_directory_is_packed_without_its_manifest_and_keeps_what_runs() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("lib/__pycache__")).unwrap();
        std::fs::write(dir.path().join("function.toml"), "name = 'x'").unwrap();
        std::fs::write(dir.path().join("lib/__pycache__/x.pyc"), "").unwrap();
        std::fs::write(dir.path().join("lib/a.py"), "A = 1\n").unwrap();
        std::fs::write(dir.path().join("bootstrap"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(dir.path().join("bootstrap"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let packed = zip_directory(dir.path()).unwrap();
        assert_eq!(packed, zip_directory(dir.path()).unwrap());
        let mut archive = zip::ZipArchive::new(Cursor::new(packed)).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        assert_eq!(names, ["bootstrap", "lib/a.py"]);
        assert_eq!(archive.by_name("bootstrap").unwrap().unix_mode().unwrap() & 0o777, 0o755);
        let mut text = String::new();
        archive.by_name("lib/a.py").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "A = 1\n");
    }

    #[test]
    fn a_manifest_says_how_a_function_runs() {
        let manifest =
            Manifest::parse("name = 'a'\nruntime = 'python3.11'\nurl = true\n[environment]\nX = '1'").unwrap();
        assert_eq!(manifest.runtime.as_deref(), Some("python3.11"));
        assert!(manifest.url);
        let error = Manifest::parse("memory = 128").unwrap_err();
        assert!(format!("{error:#}").contains("memory"), "{error:#}");
    }
}
