//! Which user of the host a cell's user is.
//!
//! As root each cell has a host id that no other cell and nobody else has: should anything ever leak out of a cell, it owns nothing
//! there. An ordinary user can map only itself.
//!
//! Cells' user namespaces lie in one of the nursery's own, in which the nursery and runtime templates have every capability and outside of
//! which they have none.

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
    /// The node's own user.
    Own,
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
        if !nix::unistd::geteuid().is_root() {
            return Ok(Self::Own);
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
            // The nursery's user namespace has the node's user as its root.
            Self::Own => Ok(Lease { uid: 0, gid: 0, of: None }),
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

/// Maps the ids of the nursery's user namespace: root's are the same inside, an ordinary user is root inside, where that says no more
/// than that it has made the namespace.
pub(super) fn map_nursery(pid: u32) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        let same = |file: &str| -> io::Result<()> {
            let map = fs::read_to_string(format!("/proc/self/{file}"))?;
            write_map(pid, file, &same_inside(&map))
        };
        same("gid_map")?;
        return same("uid_map");
    }
    write_map(pid, "setgroups", "deny")?;
    write_map(pid, "gid_map", &format!("0 {gid} 1"))?;
    write_map(pid, "uid_map", &format!("0 {uid} 1"))
}

/// Maps the user and group of a cell in the user namespace of a process, which must have none yet; called by the nursery.
pub(crate) fn map_cell(pid: u32, uid: u32, gid: u32) -> io::Result<()> {
    // Groups of the node must not be dropped from inside: a file may refuse a group and allow everybody else.
    write_map(pid, "setgroups", "deny")?;
    write_map(pid, "gid_map", &format!("{GID_INSIDE} {gid} 1"))?;
    write_map(pid, "uid_map", &format!("{UID_INSIDE} {uid} 1"))
}

fn write_map(pid: u32, file: &str, text: &str) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/{file}"), text)
}

/// The map that gives every id that is known here the same number one level below.
fn same_inside(map: &str) -> String {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace();
        let (inside, length) = (numbers.next().unwrap_or("0"), numbers.nth(1).unwrap_or("1"));
        format!("{inside} {inside} {length}\n")
    };
    map.lines().map(line).collect()
}

/// A cell's ids as the nursery knows them.
#[derive(Debug)]
pub(super) struct Lease {
    uid: u32,
    gid: u32,
    of: Option<(Arc<Block>, usize)>,
}

impl Lease {
    /// User and group.
    pub(super) fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
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
    fn the_nurserys_ids_are_those_of_the_node() {
        assert_eq!(same_inside("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(same_inside("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }

    #[test]
    fn a_map_reaches_to_its_last_id() {
        assert_eq!(mapped_to("         0          0 4294967295\n"), 4_294_967_295);
        assert_eq!(mapped_to("0 1000 1\n1 100000 65536\n"), 65_537);
    }
}
