//! What is done to the node's disk.
//!
//! *Full*: the data directory is a small file system of its own (ext4 in a file, mounted; only root can), which is filled to the last byte and
//! freed. *Fsync*: a library of this soak stands in front of the node's own (`LD_PRELOAD`) and fails every sync while it is told to. Neither is
//! known to the node.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::bench::servers::Ground;
use crate::run;

/// What the node has to live with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// It is killed.
    Kills,
    /// Its disk fills up, and it is killed.
    Full,
    /// Its disk fails every sync, and it is killed.
    Fsync,
}

impl Kind {
    /// Words of the error that an event is refused with meanwhile.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Kills => &[],
            Self::Full => &["no space left"],
            Self::Fsync => &["the disk failed", "failed"],
        }
    }
}

/// Size of the file system that is filled.
const IMAGE: u64 = 192 << 20;
const SHIM: &str = include_str!("sync.c");

/// The disk of one soak.
pub struct Disk {
    kind: Kind,
    scratch: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Prepares it below `scratch`.
    pub fn make(kind: Kind, scratch: &Path) -> Result<Self> {
        let mut disk = Self { kind, scratch: scratch.to_owned(), mounted: false };
        match kind {
            Kind::Kills => {}
            Kind::Full => disk.mount()?,
            Kind::Fsync => {
                let source = scratch.join("sync.c");
                std::fs::write(&source, SHIM)?;
                let mut cc = run::command("cc");
                cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(scratch.join("sync.so")).arg(source).arg("-ldl");
                run::check(&mut cc).context("a C compiler is needed to make syncs fail")?;
            }
        }
        Ok(disk)
    }

    fn mount(&mut self) -> Result<()> {
        if !run::is_root() {
            bail!("only root can mount a file system that fills up");
        }
        let (image, point) = (self.scratch.join("image"), self.scratch.join("disk"));
        File::create(&image)?.set_len(IMAGE)?;
        std::fs::create_dir(&point)?;
        run::check(run::command("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        run::check(run::command("mount").args(["-o", "loop"]).arg(&image).arg(&point))?;
        self.mounted = true;
        Ok(())
    }

    /// Where the node is to live.
    pub fn ground(&self) -> Ground {
        let text = |name: &str| self.scratch.join(name).to_string_lossy().into_owned();
        match self.kind {
            Kind::Kills => Ground::default(),
            Kind::Full => Ground { dir: Some(self.scratch.join("disk")), env: Vec::new() },
            Kind::Fsync => {
                let env = [("LD_PRELOAD", text("sync.so")), ("SOAK_SYNC_FAILS", text("fails"))];
                Ground { dir: None, env: env.into() }
            }
        }
    }

    /// It begins to fail.
    pub fn fail(&self) -> Result<()> {
        match self.kind {
            Kind::Kills => {}
            Kind::Full => fill(&self.ballast())?,
            Kind::Fsync => drop(File::create(self.scratch.join("fails"))?),
        }
        Ok(())
    }

    /// It is as good as before.
    pub fn heal(&self) -> Result<()> {
        match self.kind {
            Kind::Kills => Ok(()),
            Kind::Full => std::fs::remove_file(self.ballast()).context("the ballast"),
            Kind::Fsync => std::fs::remove_file(self.scratch.join("fails")).context("the sign"),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.scratch.join("disk/ballast")
    }
}

/// Takes all that is left, in ever smaller pieces.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    for size in [1 << 20, 1 << 12, 1] {
        let piece = vec![7; size];
        while file.write_all(&piece).and_then(|()| file.flush()).is_ok() {}
    }
    Ok(())
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run::check(run::command("umount").arg(self.scratch.join("disk")));
        }
    }
}
