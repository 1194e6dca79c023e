//! Code packages: zips that strangers send.
//!
//! [`check`] reads a package to its end and says whether [`unpack`] would take it; both walk the same plan, so they
//! cannot disagree. What a package may be:
//!
//! - paths stay inside: none is absolute, has `..`, or goes through another entry that is no directory;
//! - no path twice, however it is spelled;
//! - symbolic links may stay inside only: `..` stands at the start of the target alone, and no more of them than there
//!   are directories above the link. As a link is never the parent of an entry, what a link leads through is judged by
//!   the same rule, and a chain of links stays inside as well;
//! - files, directories and links, no devices; set-user-id bits are dropped, and everybody may read what is left;
//! - the bytes that really come out are counted, not the ones that are declared, and ratios do not matter.

pub mod component;
mod plan;

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use lambent_model::limits;
use zip::ZipArchive;

use plan::{Entry, Kind};

/// What a sound package holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// Files, directories and links.
    pub entries: usize,
    /// Bytes of all files, unpacked.
    pub unzipped_bytes: u64,
}

/// Why a package is refused. The texts of all but [`Error::Io`] are AWS's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a zip, or one that breaks off, is encrypted, or names something that [`self`] rules out.
    #[error("Could not unzip uploaded file. Please check your file, then try to upload again.")]
    Unreadable {
        /// What is wrong with it, for the log.
        reason: String,
    },
    /// Larger unpacked than may be.
    #[error("Unzipped size must be smaller than {limit} bytes")]
    TooLarge {
        /// What may be.
        limit: u64,
    },
    /// Nothing in it.
    #[error("Uploaded file must be a non-empty zip")]
    Empty,
    /// No WebAssembly component where one is needed.
    #[error("{reason}")]
    Component {
        /// What is there instead.
        reason: String,
    },
    /// The target directory could not be written.
    #[error("could not unpack")]
    Io(#[source] io::Error),
}

impl Error {
    fn unreadable(reason: impl ToString) -> Self {
        Self::Unreadable { reason: reason.to_string() }
    }
}

/// Most entries of a package.
pub const ENTRIES: usize = 200_000;
/// The longest target of a symbolic link.
const LINK_BYTES: u64 = 4_095;

/// Reads all of `zip` as [`unpack`] would, writing nothing.
pub fn check(zip: &[u8]) -> Result<Contents, Error> {
    walk(io::Cursor::new(zip), limits::UNZIPPED_CODE_BYTES, &mut Discard)
}

/// Unpacks `zip` into `dir`, which must not exist; on any error it does not exist afterwards either.
pub fn unpack(zip: impl Read + Seek, dir: &Path) -> Result<Contents, Error> {
    unpack_within(zip, dir, limits::UNZIPPED_CODE_BYTES)
}

fn unpack_within(zip: impl Read + Seek, dir: &Path, limit: u64) -> Result<Contents, Error> {
    if dir.symlink_metadata().is_ok() {
        return Err(Error::Io(io::ErrorKind::AlreadyExists.into()));
    }
    let parent = dir.parent().unwrap_or(Path::new("."));
    // Appears under its name when it is whole; removes itself until then.
    let temp = tempfile::Builder::new().prefix(".unpack-").tempdir_in(parent).map_err(Error::Io)?;
    let contents = walk(zip, limit, &mut Unpack { root: temp.path().to_owned() })?;
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).map_err(Error::Io)?;
    fs::rename(temp.path(), dir).map_err(Error::Io)?;
    // Its name is gone, so there is nothing for the guard to remove.
    let _ = temp.keep();
    Ok(contents)
}

/// Where a package's entries go.
trait Sink {
    fn directory(&mut self, path: &Path) -> io::Result<()>;
    fn file(&mut self, path: &Path, mode: u32) -> io::Result<Box<dyn Write>>;
    fn link(&mut self, path: &Path, target: &str) -> io::Result<()>;
}

struct Discard;

impl Sink for Discard {
    fn directory(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn file(&mut self, _: &Path, _: u32) -> io::Result<Box<dyn Write>> {
        Ok(Box::new(io::sink()))
    }
    fn link(&mut self, _: &Path, _: &str) -> io::Result<()> {
        Ok(())
    }
}

struct Unpack {
    root: PathBuf,
}

impl Sink for Unpack {
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        let path = self.root.join(path);
        fs::create_dir_all(&path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    }
    fn file(&mut self, path: &Path, mode: u32) -> io::Result<Box<dyn Write>> {
        let file = File::create_new(self.root.join(path))?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(Box::new(file))
    }
    fn link(&mut self, path: &Path, target: &str) -> io::Result<()> {
        symlink(target, self.root.join(path))
    }
}

fn walk(zip: impl Read + Seek, limit: u64, sink: &mut dyn Sink) -> Result<Contents, Error> {
    let mut zip = ZipArchive::new(zip).map_err(Error::unreadable)?;
    let entries = plan::plan(&mut zip)?;
    if entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.declared_bytes)) >= limit {
        return Err(Error::TooLarge { limit });
    }
    let mut left = limit;
    let mut buffer = vec![0; 64 * 1024];
    let mut links = Vec::new();
    for entry in &entries {
        match entry.kind {
            Kind::Directory => sink.directory(&entry.path).map_err(Error::Io)?,
            Kind::File { mode } => {
                if let Some(parent) = entry.path.parent() {
                    sink.directory(parent).map_err(Error::Io)?;
                }
                let mut file = sink.file(&entry.path, mode).map_err(Error::Io)?;
                left = copy(&mut zip, entry, file.as_mut(), &mut buffer, left, limit)?;
            }
            Kind::Link => links.push((entry, target(&mut zip, entry)?)),
        }
    }
    // Links last: nothing is ever written through one.
    for (entry, target) in links {
        if let Some(parent) = entry.path.parent() {
            sink.directory(parent).map_err(Error::Io)?;
        }
        sink.link(&entry.path, &target).map_err(Error::Io)?;
    }
    Ok(Contents { entries: entries.len(), unzipped_bytes: limit - left })
}

/// Copies an entry, checksum included; returns how many bytes may still come.
fn copy<R: Read + Seek>(
    zip: &mut ZipArchive<R>,
    entry: &Entry,
    to: &mut dyn Write,
    buffer: &mut [u8],
    mut left: u64,
    limit: u64,
) -> Result<u64, Error> {
    let mut from = zip.by_index(entry.index).map_err(Error::unreadable)?;
    loop {
        let count = match from.read(buffer) {
            Ok(0) => return Ok(left),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::unreadable(error)),
        };
        left = left.checked_sub(count as u64).filter(|left| *left > 0).ok_or(Error::TooLarge { limit })?;
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(Error::Io)?;
    }
}

/// Where a link leads, if that is inside.
fn target<R: Read + Seek>(zip: &mut ZipArchive<R>, entry: &Entry) -> Result<String, Error> {
    let from = zip.by_index(entry.index).map_err(Error::unreadable)?;
    let mut target = String::new();
    from.take(LINK_BYTES + 1).read_to_string(&mut target).map_err(Error::unreadable)?;
    let depth = entry.path.components().count() - 1;
    if target.len() as u64 > LINK_BYTES || !plan::stays_inside(&target, depth) {
        return Err(Error::unreadable(format!("the link {} leads out", entry.path.display())));
    }
    Ok(target)
}

#[cfg(test)]
mod tests;
