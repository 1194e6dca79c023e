//! Leftovers of nodes that were killed: their processes have gone with them, their cgroups have not.
//!
//! Each node writes down the cgroups it made, in a file of its own in the sandbox's directory. A later node with the same directory
//! reads the files of dead ones. It does not search the cgroup file system: there it would find groups of nodes in other containers,
//! whose process numbers mean nothing here, and take living ones for dead.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cgroup;
use crate::owner::Owner;

/// Name of a record: this and its [`Owner`].
const PREFIX: &str = "cells-";

/// The node's cgroups, written down. Shared by the back end and what remains of its cells: when the last of them lets go, the
/// directories are empty and go with the record.
#[derive(Debug)]
pub(super) struct Cgroups {
    pub(super) tree: cgroup::Tree,
    /// Or why cells cannot be frozen.
    pub(super) freezer: Result<cgroup::freezer::Tree, String>,
    directory: PathBuf,
    owner: Owner,
}

impl Cgroups {
    /// Writes down the node's directories.
    pub(super) fn remember(
        tree: cgroup::Tree,
        freezer: Result<cgroup::freezer::Tree, String>,
        directory: &Path,
        owner: Owner,
    ) -> io::Result<Self> {
        let cgroups = Self { tree, freezer, directory: directory.to_owned(), owner };
        let text: String = cgroups.directories().iter().map(|path| format!("{}\n", path.display())).collect();
        fs::write(record(directory, owner), text)?;
        Ok(cgroups)
    }

    /// The node's directories. That of the freezer comes first: who is frozen cannot die, and so cannot leave the others.
    fn directories(&self) -> Vec<PathBuf> {
        let freezer = self.freezer.as_ref().ok().and_then(cgroup::freezer::Tree::directory);
        freezer.into_iter().chain(self.tree.directories()).collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        forget(&self.directory, self.owner, &self.directories());
    }
}

/// Removes the record once its directories are gone.
fn forget(directory: &Path, owner: Owner, cgroups: &[PathBuf]) {
    for cgroup in cgroups {
        let _ = fs::remove_dir(cgroup);
    }
    if !cgroups.iter().any(|cgroup| cgroup.exists()) {
        let _ = fs::remove_file(record(directory, owner));
    }
}

/// Ends what dead nodes left; blocking. Returns how many cells that were.
pub(super) fn recover(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let mut cells = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|text| text.parse::<Owner>().ok());
        let Some(owner) = owner.filter(|owner| !owner.alive()) else { continue };
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        // Only what bears the dead node's name, whatever the file says.
        let wanted = format!("{}{owner}", cgroup::PREFIX);
        let cgroups: Vec<PathBuf> = text.lines().map(PathBuf::from).filter(|path| path.ends_with(&wanted)).collect();
        cells += cgroups.iter().map(|cgroup| clear(cgroup)).max().unwrap_or(0);
        forget(directory, owner, &cgroups);
    }
    cells
}

/// Removes the groups of cells in one directory and returns their number.
fn clear(cgroup: &Path) -> usize {
    let Ok(entries) = fs::read_dir(cgroup) else { return 0 };
    let cells = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut count = 0;
    for cell in cells {
        match cgroup::remove(&cell.path()) {
            Ok(()) => count += 1,
            Err(error) => tracing::warn!(path = %cell.path().display(), %error, "cannot remove a dead node's cgroup"),
        }
    }
    count
}

fn record(directory: &Path, owner: Owner) -> PathBuf {
    directory.join(format!("{PREFIX}{owner}"))
}
