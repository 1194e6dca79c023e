//! What a package's entries are called and what they are, judged before any of them is read.

use std::collections::HashMap;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::{ENTRIES, Error};

/// An entry that may be unpacked.
pub(super) struct Entry {
    pub(super) index: usize,
    /// Relative, of plain names only.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// What the zip says; nothing to rely on.
    pub(super) declared_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File { mode: u32 },
    Link,
}

const TYPE_MASK: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
/// Names and paths that Linux takes, with room for where they are unpacked.
const NAME_BYTES: usize = 255;
const PATH_BYTES: usize = 3_000;

pub(super) fn plan<R: Read + Seek>(zip: &mut ZipArchive<R>) -> Result<Vec<Entry>, Error> {
    match zip.len() {
        0 => return Err(Error::Empty),
        1..=ENTRIES => {}
        count => return Err(Error::unreadable(format!("{count} entries"))),
    }
    if zip.has_duplicate_names() {
        return Err(Error::unreadable("a name twice"));
    }
    let mut seen = Seen::default();
    let mut entries = Vec::with_capacity(zip.len());
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(Error::unreadable)?;
        if entry.encrypted() {
            return Err(Error::unreadable("encrypted"));
        }
        let name = match std::str::from_utf8(entry.name_raw()) {
            Ok(name) => name.to_owned(),
            Err(_) => entry.name().map_err(Error::unreadable)?.into_owned(),
        };
        let kind = kind(&name, entry.unix_mode())?;
        let Some(path) = inside(&name) else { return Err(Error::unreadable(format!("path {name:?}"))) };
        // "./" and the like: the package's own directory.
        if path.as_os_str().is_empty() {
            if kind == Kind::Directory {
                continue;
            }
            return Err(Error::unreadable(format!("path {name:?}")));
        }
        if !seen.add(&path, kind) {
            return Err(Error::unreadable(format!("{} twice", path.display())));
        }
        entries.push(Entry { index, path, kind, declared_bytes: entry.size() });
    }
    Ok(entries)
}

fn kind(name: &str, mode: Option<u32>) -> Result<Kind, Error> {
    let mode = mode.unwrap_or(0o644);
    match mode & TYPE_MASK {
        DIRECTORY => Ok(Kind::Directory),
        0 | FILE if name.ends_with('/') => Ok(Kind::Directory),
        0 | FILE => Ok(Kind::File { mode: readable(mode) }),
        LINK => Ok(Kind::Link),
        _ => Err(Error::unreadable(format!("{name:?} is no file"))),
    }
}

/// Without set-id and sticky bits; everybody may read, and run what somebody may run. Only the owner may write.
fn readable(mode: u32) -> u32 {
    if mode & 0o111 != 0 { 0o755 } else { 0o644 }
}

/// `name` without its empty and `.` parts; none where it could lead out or is no name.
fn inside(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') || name.len() > PATH_BYTES || name.contains('\0') {
        return None;
    }
    let mut path = PathBuf::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part if part.len() > NAME_BYTES => return None,
            part => path.push(part),
        }
    }
    Some(path)
}

/// Whether a link `depth` directories below the package's own stays inside when it leads to `target`.
pub(super) fn stays_inside(target: &str, depth: usize) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return false;
    }
    let mut parts = target.split('/').filter(|part| !matches!(*part, "" | "."));
    let up = parts.by_ref().take_while(|part| *part == "..").count();
    // `take_while` has eaten the first part that is a name; behind it there may be none that go up.
    up <= depth && parts.all(|part| part != "..")
}

/// Paths so far, with the directories above them.
#[derive(Default)]
struct Seen(HashMap<PathBuf, Given>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    /// As a directory above another path.
    Implied,
    /// As an entry.
    Directory,
    Leaf,
}

impl Seen {
    /// False where the path is taken, or something above it is no directory.
    fn add(&mut self, path: &Path, kind: Kind) -> bool {
        let given = match kind {
            Kind::Directory => Given::Directory,
            Kind::File { .. } | Kind::Link => Given::Leaf,
        };
        match (self.0.insert(path.to_owned(), given), given) {
            (None, _) | (Some(Given::Implied), Given::Directory) => {}
            _ => return false,
        }
        for above in path.ancestors().skip(1).take_while(|above| !above.as_os_str().is_empty()) {
            match self.0.get(above) {
                Some(Given::Leaf) => return false,
                // What is above a directory was looked at when it came.
                Some(Given::Directory | Given::Implied) => break,
                None => drop(self.0.insert(above.to_owned(), Given::Implied)),
            }
        }
        true
    }
}
