//! Paths of the inside, rewritten to where they are on the host.

use std::io;
use std::path::{Path, PathBuf};

use crate::port::Mount;

/// Directories every cell has of its own, mounted on or not; the host's directories of these names are never shown.
const PRIVATE: [&str; 4] = ["/var/task", "/opt", "/var/runtime", "/tmp"];

/// The rewriting of one cell.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    home: String,
    /// Inside → outside, longest first.
    table: Vec<(String, String)>,
    sources: Vec<String>,
}

impl Paths {
    /// Makes the private directories below `home`.
    pub(super) fn make(home: &Path, mounts: &[Mount]) -> io::Result<Self> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut table: Vec<(String, String)> = Vec::new();
        for inside in PRIVATE {
            let outside: PathBuf = home.join(inside.trim_start_matches('/'));
            std::fs::create_dir_all(&outside)?;
            table.push((inside.to_owned(), text(&outside)));
        }
        let mut paths = Self { home: text(home), table, sources: Vec::new() };
        paths.mount(mounts);
        Ok(paths)
    }

    /// Adds mounts; a later one covers an earlier one of the same place.
    pub(super) fn mount(&mut self, mounts: &[Mount]) {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        for mount in mounts {
            self.table.retain(|(inside, _)| Path::new(inside) != mount.target);
            self.table.push((text(&mount.target), text(&mount.source)));
            self.sources.push(text(&mount.source));
        }
        self.table.sort_by_key(|(inside, _)| std::cmp::Reverse(inside.len()));
    }

    /// The path on the host of `path`; one already rewritten, or not private to a cell, stays as it is.
    pub(super) fn rewrite(&self, path: &str) -> String {
        if below(path, &self.home).is_some() || self.sources.iter().any(|source| below(path, source).is_some()) {
            return path.to_owned();
        }
        let hit = self.table.iter().find_map(|(inside, outside)| Some((outside, below(path, inside)?)));
        hit.map_or_else(|| path.to_owned(), |(outside, rest)| format!("{outside}{rest}"))
    }

    /// Rewrites each element of a `:`-separated list, such as `PATH`; a plain path is a list of one.
    pub(super) fn rewrite_list(&self, list: &str) -> String {
        list.split(':').map(|path| self.rewrite(path)).collect::<Vec<_>>().join(":")
    }
}

/// What follows `base` in `path`, when `path` is `base` or below it.
fn below<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_what_is_private_once() {
        let home = tempfile::tempdir().unwrap();
        let code = tempfile::tempdir().unwrap();
        let mount = Mount { source: code.path().into(), target: "/var/task".into() };
        let paths = Paths::make(home.path(), &[mount]).unwrap();
        let (home, code) = (home.path().to_str().unwrap(), code.path().to_str().unwrap());
        assert_eq!(paths.rewrite("/var/task/a.py"), format!("{code}/a.py"));
        assert_eq!(paths.rewrite("/opt"), format!("{home}/opt"));
        assert_eq!(paths.rewrite("/optional"), "/optional");
        assert_eq!(paths.rewrite("/usr/bin/python3"), "/usr/bin/python3");
        let twice = paths.rewrite(&paths.rewrite("/tmp/x"));
        assert_eq!(twice, format!("{home}/tmp/x"));
        assert_eq!(paths.rewrite_list("/usr/bin:/opt/bin:"), format!("/usr/bin:{home}/opt/bin:"));
    }
}
