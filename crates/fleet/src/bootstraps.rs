//! Our language runtimes, written where containers see them as `/var/runtime`.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

#[path = "../../../runtimes/files.rs"]
mod files;

/// The runtimes on disk.
#[derive(Debug, Clone)]
pub(crate) struct Bootstraps {
    /// The directory to mount.
    pub directory: PathBuf,
    /// SHA-256 of all of them, which is also the last part of a runtime version's ARN.
    pub digest: String,
}

impl Bootstraps {
    /// Writes them below `root`, each content under its own digest, so that an older process's containers keep theirs; blocking.
    pub(crate) fn write(root: &Path) -> io::Result<Self> {
        let mut context = Context::new(&SHA256);
        for (path, content) in files::FILES {
            context.update(path.as_bytes());
            context.update(&content.len().to_be_bytes());
            context.update(content.as_bytes());
        }
        let digest: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let parent = root.join("runtime");
        std::fs::create_dir_all(&parent)?;
        let directory = parent.join(&digest);
        if !directory.is_dir() {
            let aside = tempfile::Builder::new().prefix(".making-").tempdir_in(&parent)?;
            for (path, content) in files::FILES {
                let target = aside.path().join(path);
                std::fs::create_dir_all(target.parent().unwrap_or(aside.path()))?;
                std::fs::write(target, content)?;
            }
            make_readable(aside.path())?;
            match std::fs::rename(aside.path(), &directory) {
                Err(error) if !directory.is_dir() => return Err(error),
                _ => {
                    let _ = aside.keep();
                }
            }
        }
        Ok(Self { directory, digest })
    }
}

/// The user inside a cell is nobody we know.
fn make_readable(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => make_readable(&path)?,
            false => std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?,
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn are_written_once_and_whole() {
        let root = tempfile::tempdir().unwrap();
        let first = Bootstraps::write(root.path()).unwrap();
        let second = Bootstraps::write(root.path()).unwrap();
        assert_eq!(first.directory, second.directory);
        assert!(first.directory.join("python/bootstrap.py").is_file());
        assert_eq!(std::fs::read_dir(root.path().join("runtime")).unwrap().count(), 1);
    }
}
