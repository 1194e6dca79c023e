//! Unpacked code: one directory for each package, shared by all containers that run it.
//!
//! ```text
//! DATA/code/<sha256 of the zip>/                     a function's code      → /var/task
//! DATA/opt/<sha256 of the layers' digests>/          layers, merged in order → /opt
//! ```
//!
//! A directory appears under its name when it is whole (made aside, then renamed); what a crash leaves half made is removed at the next
//! start. Containers [`Pin`] what they use. When the cache is larger than its bound, what nobody uses is removed, least recently used
//! first; what is in use stays even beyond the bound.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use lambent_model::{Digest, FunctionVersion};
use lambent_store::{Blobs, package};
use tokio::sync::OnceCell;

use crate::PrepareError;

/// What may be in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Code(Digest),
    Layers(Digest),
}

impl Key {
    fn path(self, root: &Path) -> PathBuf {
        match self {
            Self::Code(digest) => root.join("code").join(digest.to_string()),
            Self::Layers(digest) => root.join("opt").join(digest.to_string()),
        }
    }
}

/// The cache.
pub(crate) struct CodeCache {
    root: PathBuf,
    limit: u64,
    blobs: Arc<dyn Blobs>,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    entries: HashMap<Key, Entry>,
    bytes: u64,
    /// Counts uses; the entry with the smallest is the least recently used.
    clock: u64,
}

struct Entry {
    /// Set, with its size, once the directory is there. Whoever comes meanwhile waits for the first one's work.
    made: Arc<OnceCell<u64>>,
    bytes: u64,
    used: u64,
    pins: usize,
}

/// Keeps a directory of the cache while it lives.
pub(crate) struct Pin {
    cache: Arc<CodeCache>,
    key: Key,
    path: PathBuf,
}

impl Pin {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut index = self.cache.index();
        if let Some(entry) = index.entries.get_mut(&self.key) {
            entry.pins -= 1;
        }
    }
}

/// What a container runs.
pub(crate) struct Code {
    /// For `/var/task`.
    pub task: Pin,
    /// For `/opt`, where the function has layers.
    pub opt: Option<Pin>,
}

impl CodeCache {
    /// Opens the cache below `root` and removes what an earlier process left half made.
    pub(crate) async fn open(root: PathBuf, limit: u64, blobs: Arc<dyn Blobs>) -> Result<Arc<Self>, PrepareError> {
        let cache = Arc::new(Self { root, limit, blobs, index: Mutex::default() });
        let scanned = Arc::clone(&cache);
        blocking("read the code cache", cache.root.clone(), move || scanned.scan()).await?;
        Ok(cache)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what is there; blocking.
    fn scan(&self) -> io::Result<()> {
        for (kind, key) in [("code", Key::Code as fn(Digest) -> Key), ("opt", Key::Layers as fn(Digest) -> Key)] {
            let directory = self.root.join(kind);
            std::fs::create_dir_all(&directory)?;
            for entry in std::fs::read_dir(&directory)?.flatten() {
                match entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()) {
                    Some(digest) => {
                        let bytes = size(&entry.path());
                        let made = Arc::new(OnceCell::new_with(Some(bytes)));
                        let mut index = self.index();
                        index.bytes += bytes;
                        index.entries.insert(key(digest), Entry { made, bytes, used: 0, pins: 0 });
                    }
                    None => remove(&entry.path()),
                }
            }
        }
        Ok(())
    }

    /// The directories of `version`, made if they are not there.
    pub(crate) async fn of(self: &Arc<Self>, version: &FunctionVersion) -> Result<Code, PrepareError> {
        let task = self.pin(Key::Code(version.code.digest), vec![version.code.digest]).await?;
        let layers: Vec<Digest> = version.layers.iter().map(|layer| layer.code.digest).collect();
        let opt = match layers.is_empty() {
            true => None,
            false => Some(self.pin(Key::Layers(combined(&layers)), layers).await?),
        };
        Ok(Code { task, opt })
    }

    async fn pin(self: &Arc<Self>, key: Key, zips: Vec<Digest>) -> Result<Pin, PrepareError> {
        let path = key.path(&self.root);
        let (made, pin) = {
            let mut index = self.index();
            index.clock += 1;
            let used = index.clock;
            let entry =
                index.entries.entry(key).or_insert_with(|| Entry { made: Arc::default(), bytes: 0, used, pins: 0 });
            entry.used = used;
            entry.pins += 1;
            // Pinned before it is made, so that it cannot be evicted in between.
            (Arc::clone(&entry.made), Pin { cache: Arc::clone(self), key, path: path.clone() })
        };
        if made.get().is_none() {
            made.get_or_try_init(|| self.make(key, path, zips)).await?;
            self.evict().await;
        }
        Ok(pin)
    }

    async fn make(&self, key: Key, path: PathBuf, zips: Vec<Digest>) -> Result<u64, PrepareError> {
        let mut files = Vec::with_capacity(zips.len());
        for digest in zips {
            let found = self.blobs.path(digest).await.map_err(|source| PrepareError::Store { digest, source })?;
            files.push((digest, found.ok_or(PrepareError::Missing { digest })?));
        }
        let bytes = tokio::task::spawn_blocking(move || unpack(&path, &files)).await.unwrap_or_else(|_| {
            Err(PrepareError::Io {
                step: "unpack code",
                path: PathBuf::new(),
                source: io::ErrorKind::Interrupted.into(),
            })
        })?;
        let mut index = self.index();
        index.bytes += bytes;
        if let Some(entry) = index.entries.get_mut(&key) {
            entry.bytes = bytes;
        }
        Ok(bytes)
    }

    /// Removes what nobody uses until the cache is within its bound.
    async fn evict(&self) {
        let mut victims = Vec::new();
        {
            let mut index = self.index();
            while index.bytes > self.limit {
                let idle = index.entries.iter().filter(|(_, entry)| entry.pins == 0);
                let Some(key) = idle.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key) else { break };
                if let Some(entry) = index.entries.remove(&key) {
                    index.bytes -= entry.bytes;
                }
                // Out of the way under the lock: the next one to want it makes it anew.
                let path = key.path(&self.root);
                let aside = path.with_extension("evicted");
                match std::fs::rename(&path, &aside) {
                    Ok(()) => victims.push(aside),
                    Err(error) => tracing::warn!(path = %path.display(), %error, "cannot evict unpacked code"),
                }
            }
        }
        if !victims.is_empty() {
            let _ = tokio::task::spawn_blocking(move || victims.iter().for_each(|path| remove(path))).await;
        }
    }
}

/// The name of layers laid over each other in this order.
fn combined(layers: &[Digest]) -> Digest {
    let mut context = Context::new(&SHA256);
    layers.iter().for_each(|layer| context.update(layer.as_bytes()));
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest::from(bytes)
}

/// Unpacks `zips` over each other into `path`; blocking.
fn unpack(path: &Path, zips: &[(Digest, PathBuf)]) -> Result<u64, PrepareError> {
    let io = |step: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| PrepareError::Io { step, path, source }
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let aside =
        tempfile::Builder::new().prefix(".making-").tempdir_in(parent).map_err(io("make a directory", parent))?;
    let merged = aside.path().join("merged");
    for (position, (digest, zip)) in zips.iter().enumerate() {
        let package = |error: package::Error| match error {
            package::Error::Io(source) => io("unpack", path)(source),
            error => PrepareError::Package { digest: *digest, reason: error.to_string() },
        };
        let file = std::fs::File::open(zip).map_err(io("open", zip))?;
        if position == 0 {
            package::unpack(file, &merged).map_err(package)?;
        } else {
            let layer = aside.path().join("layer");
            package::unpack(file, &layer).map_err(package)?;
            overlay(&layer, &merged).map_err(io("merge a layer into", path))?;
            std::fs::remove_dir_all(&layer).map_err(io("remove", &layer))?;
        }
    }
    let bytes = size(&merged);
    match std::fs::rename(&merged, path) {
        Err(source) if !path.is_dir() => return Err(io("rename", path)(source)),
        _ => {}
    }
    Ok(bytes)
}

/// Moves everything below `upper` over `lower`; what both have, `upper`'s wins, directories are merged.
fn overlay(upper: &Path, lower: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(upper)? {
        let entry = entry?;
        let target = lower.join(entry.file_name());
        let there = target.symlink_metadata().ok().map(|meta| meta.is_dir());
        match (entry.file_type()?.is_dir(), there) {
            (true, Some(true)) => {
                overlay(&entry.path(), &target)?;
                continue;
            }
            (_, Some(true)) => std::fs::remove_dir_all(&target)?,
            (_, Some(false)) => std::fs::remove_file(&target)?,
            (_, None) => {}
        }
        std::fs::rename(entry.path(), &target)?;
    }
    Ok(())
}

/// Bytes of all files below `path`; what cannot be read counts nothing.
fn size(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn remove(path: &Path) {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "cannot remove left-overs of the code cache");
    }
}

async fn blocking(
    step: &'static str,
    path: PathBuf,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), PrepareError> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
    done.map_err(|source| PrepareError::Io { step, path, source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn upper_layers_win_and_directories_merge() {
        let root = tempfile::tempdir().unwrap();
        let (upper, lower) = (root.path().join("upper"), root.path().join("lower"));
        for (layer, files) in
            [(&lower, ["a/one", "a/both", "file"]), (&upper, ["a/two", "a/both", "file/now-a-directory"])]
        {
            for file in files {
                let path = layer.join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, layer.to_str().unwrap()).unwrap();
            }
        }
        overlay(&upper, &lower).unwrap();
        assert_eq!(std::fs::read_to_string(lower.join("a/both")).unwrap(), upper.to_str().unwrap());
        assert!(lower.join("a/one").exists() && lower.join("a/two").exists());
        assert!(lower.join("file/now-a-directory").exists());
    }

    fn zipped(content: &str) -> bytes::Bytes {
        use std::io::Write as _;
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file("file", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
        zip.finish().unwrap().into_inner().into()
    }

    async fn pinned(cache: &Arc<CodeCache>, digest: Digest) -> Pin {
        cache.pin(Key::Code(digest), vec![digest]).await.unwrap()
    }

    #[tokio::test]
    async fn what_nobody_uses_makes_place_the_longest_unused_first() {
        let root = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(lambent_store::files::Blobs::open(&root.path().join("blobs")).unwrap());
        let mut digests = Vec::new();
        for content in ["aaaa", "bbbb", "cccc", "dddd"] {
            digests.push(blobs.put(zipped(content)).await.unwrap());
        }
        let cache = CodeCache::open(root.path().join("cache"), 9, blobs).await.unwrap();
        let held = pinned(&cache, digests[0]).await;
        let kept = |digest: Digest| Key::Code(digest).path(&cache.root).is_dir();
        for digest in digests.get(1..).unwrap() {
            drop(pinned(&cache, *digest).await);
        }
        assert!(kept(digests[0]) && held.path().join("file").is_file(), "what is in use stays");
        assert!(!kept(digests[1]) && !kept(digests[2]) && kept(digests[3]));
        // What was evicted comes back when it is wanted again.
        assert!(pinned(&cache, digests[1]).await.path().join("file").is_file());
        assert_eq!(std::fs::read_dir(root.path().join("cache/code")).unwrap().count(), 2, "nothing else is left");
    }

    #[tokio::test]
    async fn a_new_process_takes_up_what_is_whole_and_removes_the_rest() {
        let root = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(lambent_store::files::Blobs::open(&root.path().join("blobs")).unwrap());
        let digest = blobs.put(zipped("aaaa")).await.unwrap();
        let directory = root.path().join("cache");
        let cache = CodeCache::open(directory.clone(), 100, Arc::clone(&blobs)).await.unwrap();
        drop(pinned(&cache, digest).await);
        std::fs::create_dir_all(directory.join("code/.making-x/merged")).unwrap();
        blobs.delete(digest).await.unwrap();
        let cache = CodeCache::open(directory.clone(), 100, blobs).await.unwrap();
        assert!(pinned(&cache, digest).await.path().join("file").is_file(), "without the blob");
        assert_eq!(std::fs::read_dir(directory.join("code")).unwrap().count(), 1);
        let missing = Digest::from([9; 32]);
        assert!(matches!(cache.pin(Key::Code(missing), vec![missing]).await, Err(PrepareError::Missing { .. })));
    }

    #[test]
    fn the_order_of_layers_matters() {
        let (a, b) = (Digest::from([1; 32]), Digest::from([2; 32]));
        assert_ne!(combined(&[a, b]), combined(&[b, a]));
    }
}
