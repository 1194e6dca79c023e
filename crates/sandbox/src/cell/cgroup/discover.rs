//! Where the cgroup file systems are, and where in them this process is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// For each controller of version 1, and for version 2: directories to try, best first.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    pub(super) v1: BTreeMap<String, Vec<PathBuf>>,
    pub(super) v2: Vec<PathBuf>,
}

impl Hierarchies {
    /// Of this host.
    pub(crate) fn of_this_host() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?, &fs::read_to_string("/proc/self/cgroup")?))
    }

    pub(super) fn parse(mountinfo: &str, own: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let mut place = place.split(' ').skip(3);
            let (Some(root), Some(mounted)) = (place.next(), place.next()) else { continue };
            let mut kind = kind.split(' ');
            match (kind.next(), kind.nth(1)) {
                (Some("cgroup2"), _) if found.v2.is_empty() => found.v2 = directories(mounted, root, own_path(own, "")),
                (Some("cgroup"), Some(options)) => {
                    for controller in options.split(',') {
                        let directories = directories(mounted, root, own_path(own, controller));
                        found.v1.entry(controller.to_owned()).or_insert(directories);
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// This process's path in the hierarchy of a controller (version 2 has the empty name).
fn own_path<'a>(own: &'a str, controller: &str) -> &'a str {
    let mut lines = own.lines().filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
    let found = lines.find(|[controllers, _]: &[&str; 2]| controllers.split(',').any(|name| name == controller));
    found.map_or("/", |[_, path]| path)
}

/// Our own group first, so that limits set on the node hold for its cells; then the top of what is mounted.
fn directories(mounted: &str, root: &str, own: &str) -> Vec<PathBuf> {
    let top = Path::new(mounted);
    let below = Path::new(own).strip_prefix(root).unwrap_or(Path::new("")).to_owned();
    let mut directories = vec![top.join(below)];
    if directories.first().is_some_and(|first| first != top) {
        directories.push(top.to_owned());
    }
    directories
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn version_1_with_joint_controllers_and_a_sub_path() {
        let mountinfo = "30 20 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n\
                         31 20 0:28 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let own = "4:memory:/deep/in\n3:cpu,cpuacct:/docker/abc/x\n0::/\n";
        let found = Hierarchies::parse(mountinfo, own);
        let memory = [PathBuf::from("/sys/fs/cgroup/memory/deep/in"), PathBuf::from("/sys/fs/cgroup/memory")];
        assert_eq!(found.v1["memory"], memory);
        assert_eq!(found.v1["cpuacct"][0], Path::new("/sys/fs/cgroup/cpu,cpuacct/x"));
        assert!(found.v2.is_empty());
    }

    #[test]
    fn version_2_in_a_delegated_unit() {
        let mountinfo = "30 20 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::parse(mountinfo, "0::/user.slice/lambent.service\n");
        assert_eq!(found.v2[0], Path::new("/sys/fs/cgroup/user.slice/lambent.service"));
        assert_eq!(found.v2[1], Path::new("/sys/fs/cgroup"));
        assert!(found.v1.is_empty());
    }
}
