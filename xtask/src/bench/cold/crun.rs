//! `crun` starting a program in a container, for comparison.
//!
//! This version of it refuses hosts that mount cgroup v2 beside v1; where that is so it runs in a mount namespace without the former,
//! which is made before the time is taken.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::bench::{install, load};
use crate::run;

/// A shell that takes what is in the way away, says so, and becomes its arguments when it is told to.
const WHEN_TOLD: &str = "umount /sys/fs/cgroup/unified 2>/dev/null; echo; read -r go; exec \"$@\"";

/// A `crun` that works here.
pub struct Crun {
    root: PathBuf,
}

impl Crun {
    /// Finds or installs it; none, with a line that says why, where it cannot run.
    pub fn find() -> Result<Option<Self>> {
        if !run::is_root() {
            eprintln!("skipped: crun, which needs root for what is asked of it here");
            return Ok(None);
        }
        let found = install::crun()?.map(|root| Self { root });
        if found.is_none() {
            eprintln!("skipped: crun, which is installed from Debian packages");
        }
        Ok(found)
    }

    /// From the start of `crun` until the program, which prints when it began in microseconds since 1970, runs; in milliseconds.
    pub fn until_user_code(&self, argv: &[String], dir: &Path) -> Result<f64> {
        let bundle = tempfile::tempdir()?;
        write_bundle(bundle.path(), argv, dir)?;
        let id = bundle.path().file_name().unwrap_or_default().to_string_lossy().replace('.', "bench-");
        let mut command = run::command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", WHEN_TOLD, "sh"]);
        command.arg(self.root.join("usr/bin/crun")).args(["run", "--bundle"]).arg(bundle.path()).arg(&id);
        let libraries = self.root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        command.env("LD_LIBRARY_PATH", libraries).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start unshare")?;
        let (mut input, output) = (child.stdin.take().context("no pipe")?, child.stdout.take().context("no pipe")?);
        let mut output = BufReader::new(output);
        output.read_line(&mut String::new())?;
        let started = jiff::Timestamp::now().as_microsecond();
        input.write_all(b"go\n")?;
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        if !child.wait()?.success() {
            bail!("crun failed: {text}");
        }
        Ok(load::millis(text.trim().parse::<i64>().with_context(|| format!("crun said {text:?}"))? - started))
    }
}

/// A bundle with the host's `/usr`, as cells have it.
fn write_bundle(bundle: &Path, argv: &[String], dir: &Path) -> Result<()> {
    let root = bundle.join("rootfs");
    for name in ["proc", "dev", "tmp", "usr", "function"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    let mount = |destination: &str, kind: &str, source: &Path, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 65534, "gid": 65534 },
            "args": argv,
            "env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
            "cwd": "/function",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            mount("/proc", "proc", Path::new("proc"), &[]),
            mount("/dev", "tmpfs", Path::new("tmpfs"), &["nosuid", "mode=755"]),
            mount("/tmp", "tmpfs", Path::new("tmpfs"), &["nosuid", "nodev"]),
            mount("/usr", "bind", Path::new("/usr"), &["rbind", "ro"]),
            mount("/function", "bind", dir, &["rbind", "ro"]),
        ],
        "linux": { "namespaces": namespaces, "resources": { "memory": { "limit": 1769 * 1024 * 1024_u64 } } },
    });
    Ok(std::fs::write(bundle.join("config.json"), config.to_string())?)
}
