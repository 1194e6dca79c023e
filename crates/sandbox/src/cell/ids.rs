//! Which user of the host a cell's user is.
//!
//! As root each cell has a host id that no other cell and nobody else has: should anything ever leak out of a cell, it owns nothing
//! there. An ordinary user can map only itself.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

/// The only user and group inside: Lambda's `sbx_user1051`.
pub(super) const UID_INSIDE: u32 = 993;
pub(super) const GID_INSIDE: u32 = 990;

/// Above every range that is handed out otherwise (subordinate ids, containers of systemd), below the sign bit.
const PREFERRED: u32 = 0x7000_0000;
/// Ids a node takes; so many cells at once.
const BLOCK: u32 = 4096;
/// Blocks to try in the preferred range.
const BLOCKS: u32 = 1024;
/// Below this, ids belong to people and services.
const LEAST: u32 = 10_000;

/// The ids of one node.
#[derive(Debug, Clone)]
pub(super) enum Ids {
    /// A block no other node on this host has.
    Block(Arc<Block>),
    /// An ordinary user's own.
    Own { uid: u32, gid: u32 },
}

#[derive(Debug)]
pub(super) struct Block {
    first: u32,
    taken: Mutex<Vec<bool>>,
    /// Holds the block's name in the abstract socket namespace; the kernel lets go of it with the process.
    _claim: Option<std::os::fd::OwnedFd>,
}

impl Ids {
    /// What this process may map. The error says why it can map nothing.
    pub(super) fn claim() -> Result<Self, String> {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        if !uid.is_root() {
            return Ok(Self::Own { uid: uid.as_raw(), gid: gid.as_raw() });
        }
        let reach = |path| mapped_to(&fs::read_to_string(path).unwrap_or_default());
        let end = reach("/proc/self/uid_map").min(reach("/proc/self/gid_map"));
        if end >= u64::from(PREFERRED) + u64::from(BLOCK) * u64::from(BLOCKS) {
            for number in 0..BLOCKS {
                let first = PREFERRED + number * BLOCK;
                if let Ok(claim) = claim_name(first) {
                    return Ok(Self::block(first, Some(claim)));
                }
            }
            return Err("every block of host user ids is taken by other nodes".to_owned());
        }
        // Root of a container with few ids: the last ones. Other nodes in it would take the same; a container has one.
        match u32::try_from(end.saturating_sub(u64::from(BLOCK))) {
            Ok(first) if first >= LEAST => Ok(Self::block(first, None)),
            _ => Err(format!("only {end} user ids are mapped here; cells need {BLOCK} of their own")),
        }
    }

    fn block(first: u32, claim: Option<std::os::fd::OwnedFd>) -> Self {
        Self::Block(Arc::new(Block { first, taken: Mutex::default(), _claim: claim }))
    }

    /// A pair for one cell, until the lease is dropped.
    pub(super) fn lease(&self) -> io::Result<Lease> {
        match self {
            Self::Own { uid, gid } => Ok(Lease { uid: *uid, gid: *gid, of: None }),
            Self::Block(block) => {
                let mut taken = block.taken.lock().unwrap_or_else(PoisonError::into_inner);
                let free = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
                let offset = u32::try_from(free).ok().filter(|offset| *offset < BLOCK);
                let offset = offset.ok_or_else(|| io::Error::other("all host user ids of this node are in use"))?;
                match taken.get_mut(free) {
                    Some(slot) => *slot = true,
                    None => taken.push(true),
                }
                let id = block.first + offset;
                Ok(Lease { uid: id, gid: id, of: Some((block.clone(), free)) })
            }
        }
    }
}

/// A cell's ids on the host.
#[derive(Debug)]
pub(super) struct Lease {
    uid: u32,
    gid: u32,
    of: Option<(Arc<Block>, usize)>,
}

impl Lease {
    /// Maps them in the user namespace of a process, which must have none yet.
    pub(super) fn map(&self, pid: u32) -> io::Result<()> {
        let write = |file: &str, text: String| {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, text).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
        };
        // Groups of the node must not be dropped from inside: a file may refuse a group and allow everybody else.
        write("setgroups", "deny".to_owned())?;
        write("gid_map", format!("{GID_INSIDE} {} 1", self.gid))?;
        write("uid_map", format!("{UID_INSIDE} {} 1", self.uid))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((block, slot)) = &self.of
            && let Some(taken) = block.taken.lock().unwrap_or_else(PoisonError::into_inner).get_mut(*slot)
        {
            *taken = false;
        }
    }
}

/// One past the last id that a map file reaches.
fn mapped_to(map: &str) -> u64 {
    let end = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|text| text.parse::<u64>().unwrap_or(0));
        numbers.next().unwrap_or(0) + numbers.nth(1).unwrap_or(0)
    };
    map.lines().map(end).max().unwrap_or(0)
}

/// Takes a name that says whose this block is.
fn claim_name(first: u32) -> io::Result<std::os::fd::OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let name = UnixAddr::new_abstract(format!("lambent-ids-{first}").as_bytes())?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &name)?;
    Ok(fd)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn leases_differ_and_come_back() {
        let ids = Ids::block(70_000, None);
        let (a, b) = (ids.lease().unwrap(), ids.lease().unwrap());
        assert_eq!((a.uid, b.uid), (70_000, 70_001));
        drop(a);
        assert_eq!(ids.lease().unwrap().uid, 70_000);
    }

    #[test]
    fn two_nodes_never_share_a_block() {
        // Any block serves; another test or node may hold the first ones.
        let first = PREFERRED + BLOCKS * BLOCK + std::process::id();
        let claim = claim_name(first).unwrap();
        assert!(claim_name(first).is_err());
        drop(claim);
        assert!(claim_name(first).is_ok());
    }

    #[test]
    fn a_map_reaches_to_its_last_id() {
        assert_eq!(mapped_to("         0          0 4294967295\n"), 4_294_967_295);
        assert_eq!(mapped_to("0 1000 1\n1 100000 65536\n"), 65_537);
    }
}
