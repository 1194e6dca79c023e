//! What interpreters said, kept on disk so that a node that starts again need not run them again.
//!
//! An answer counts for the very file that gave it: device, inode, size, and the times of its content and of its metadata. A package
//! manager's upgrade changes several of them, and nobody can set the last. Scripts are never remembered, as what they stand for changes
//! without them. A file that cannot be read is as good as none.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Format of the file; others are forgotten.
const FORMAT: u32 = 1;
/// Larger than any file that [`Memory::keep`] writes.
const LARGEST_FILE: u64 = 1 << 20;

/// What a program said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    pub node: bool,
    /// `3.11`, `20.1.0`.
    pub version: String,
    /// The program that ran in the end.
    pub program: PathBuf,
    /// Where its libraries are.
    pub prefix: PathBuf,
}

/// What tells one file from another, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    said: Said,
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    programs: HashMap<PathBuf, Entry>,
}

/// The file, read.
#[derive(Debug)]
pub(super) struct Memory {
    file: PathBuf,
    programs: HashMap<PathBuf, Entry>,
}

impl Memory {
    /// Reads `file`; blocking.
    pub(super) fn open(file: PathBuf) -> Self {
        let programs = read(&file).filter(|written| written.format == FORMAT).map(|written| written.programs);
        Self { file, programs: programs.unwrap_or_default() }
    }

    /// What the program said when it was asked, if it is still the same.
    pub(super) fn of(&self, program: &Path) -> Option<Said> {
        let entry = self.programs.get(program)?;
        (stamp(program)? == entry.stamp).then(|| entry.said.clone())
    }

    /// Replaces what was known, where that changes anything; blocking.
    pub(super) fn keep(self, said: Vec<(PathBuf, Said)>) {
        let entry = |(path, said): (PathBuf, Said)| Some((path.clone(), Entry { stamp: stamp(&path)?, said }));
        let programs: HashMap<PathBuf, Entry> = said.into_iter().filter_map(entry).collect();
        if programs != self.programs
            && let Err(error) = write(&self.file, &Written { format: FORMAT, programs })
        {
            tracing::warn!(file = %self.file.display(), %error, "cannot remember the interpreters; the next start asks them again");
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    if super::is_shim(path) {
        return None;
    }
    let data = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: data.dev(),
        inode: data.ino(),
        size: data.size(),
        modified: (data.mtime(), data.mtime_nsec()),
        changed: (data.ctime(), data.ctime_nsec()),
    })
}

fn read(file: &Path) -> Option<Written> {
    if std::fs::metadata(file).ok()?.len() > LARGEST_FILE {
        return None;
    }
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Whole or not at all; not synced, as losing it costs a moment.
fn write(file: &Path, written: &Written) -> std::io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let aside = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer(&aside, written)?;
    aside.persist(file)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn said(version: &str) -> Said {
        Said { node: false, version: version.to_owned(), program: "/p/bin/python3".into(), prefix: "/p".into() }
    }

    #[test]
    fn an_answer_counts_for_the_file_that_gave_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("deep/interpreters.json");
        let [program, script] = ["python3.12", "python3.13"].map(|name| directory.path().join(name));
        std::fs::write(&program, "\x7fELF").unwrap();
        std::fs::write(&script, "#!/bin/sh").unwrap();
        Memory::open(file.clone()).keep(vec![(program.clone(), said("3.12")), (script.clone(), said("3.13"))]);
        let memory = Memory::open(file.clone());
        assert_eq!(memory.of(&program), Some(said("3.12")));
        assert_eq!(memory.of(&script), None, "what a script stands for may change");
        std::fs::write(&program, "\x7fELF, upgraded").unwrap();
        assert_eq!(memory.of(&program), None);
        std::fs::remove_file(&program).unwrap();
        assert_eq!(memory.of(&program), None);
    }

    #[test]
    fn what_cannot_be_read_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("interpreters.json");
        let program = directory.path().join("node");
        std::fs::write(&program, "\x7fELF").unwrap();
        for text in ["", "{", "[]", r#"{"format":2,"programs":{}}"#] {
            std::fs::write(&file, text).unwrap();
            assert!(Memory::open(file.clone()).programs.is_empty(), "{text}");
        }
        Memory::open(file.clone()).keep(vec![(program.clone(), said("20.1.0"))]);
        assert!(Memory::open(file).of(&program).is_some());
    }
}
