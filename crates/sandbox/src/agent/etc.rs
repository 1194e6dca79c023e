//! The few files of `/etc` that programs look for, made up for the cell.

use std::fs::write as put;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::wire::Build;

/// What is the host's own: the loader's cache, the links by which Debian chooses programs, certificates (not their private keys).
pub(super) const OF_THE_HOST: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/crypto-policies",
    "/etc/protocols",
    "/etc/services",
    "/etc/mime.types",
];

/// The user's name, as on Lambda.
const USER: &str = "sbx_user1051";

/// Writes them into `directory`.
pub(super) fn write(directory: &Path, order: &Build) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let file = |name: &str| directory.join(name);
    let (uid, gid) = (order.uid, order.gid);
    put(
        file("passwd"),
        format!(
            "root:x:0:0:root:/root:/bin/bash\n{USER}:x:{uid}:{gid}::/home/{USER}:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n"
        ),
    )?;
    put(file("group"), format!("root:x:0:\n{USER}:x:{gid}:\nnogroup:x:65534:\n"))?;
    put(file("hostname"), format!("{}\n", order.hostname))?;
    put(file("hosts"), format!("127.0.0.1 localhost sandbox.localdomain sandbox {}\n::1 localhost\n", order.hostname))?;
    // Written when it is known whether there is a network.
    put(file("resolv.conf"), "")?;
    put(file("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n")?;
    put(file("host.conf"), "multi on\n")?;
    symlink("/usr/share/zoneinfo/UTC", file("localtime"))?;
    symlink("/usr/lib/os-release", file("os-release"))?;
    symlink("/proc/self/mounts", file("mtab"))
}

/// `/proc/meminfo` of a machine that has just the cell's memory. It does not move: the kernel has no such numbers for a cell, and
/// what reads this file reads the total.
pub(super) fn meminfo(memory_mib: u32) -> String {
    let total = u64::from(memory_mib) * 1024;
    let free = total * 3 / 4;
    format!(
        "MemTotal:       {total:>8} kB\nMemFree:        {free:>8} kB\nMemAvailable:   {free:>8} kB\nBuffers:               0 kB\n\
         Cached:                0 kB\nSwapCached:            0 kB\nActive:                0 kB\nInactive:              0 kB\n\
         SwapTotal:             0 kB\nSwapFree:              0 kB\nDirty:                 0 kB\nWriteback:             0 kB\n\
         AnonPages:             0 kB\nMapped:                0 kB\nShmem:                 0 kB\nSlab:                  0 kB\n\
         SReclaimable:          0 kB\nSUnreclaim:            0 kB\nPageTables:            0 kB\nHugePages_Total:       0\n\
         HugePages_Free:        0\nHugepagesize:       2048 kB\n"
    )
}
