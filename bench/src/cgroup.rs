//! A memory group of the kernel: what runs in it has only so much memory, the page cache of its files included.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::engine::Result;

/// A group below this process's own (version 1), or beside it where that is what the kernel allows (version 2). It is
/// removed when this is dropped, which only works when nothing runs in it any more.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    version: u8,
    dir: PathBuf,
}

const NAME: &str = "siltstone-bench-";

impl MemoryGroup {
    /// Makes a group with room for `limit_bytes`.
    pub(crate) fn new(limit_bytes: u64) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let groups = std::fs::read_to_string("/proc/self/cgroup")?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let mut reasons = Vec::new();
        for parent in places(&groups, &mounts) {
            remove_left_behind(&parent.dir);
            let name = format!(
                "{NAME}{}-{}",
                std::process::id(),
                MADE.fetch_add(1, Ordering::Relaxed)
            );
            match make(&parent, &name, limit_bytes) {
                Ok(group) => return Ok(group),
                Err(error) => reasons.push(format!("{}: {error}", parent.dir.display())),
            }
        }
        if reasons.is_empty() {
            reasons.push("no memory controller is mounted".to_owned());
        }
        Err(reasons.join("; ").into())
    }

    /// The file that a process writes 0 into to enter the group.
    pub(crate) fn entrance(&self) -> PathBuf {
        self.place.dir.join("cgroup.procs")
    }

    /// 1 or 2.
    pub(crate) fn version(&self) -> u8 {
        self.place.version
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.place.dir) {
            eprintln!("{} stays behind: {error}", self.place.dir.display());
        }
    }
}

fn make(parent: &Place, name: &str, limit_bytes: u64) -> Result<MemoryGroup> {
    let control = parent.dir.join("cgroup.subtree_control");
    if parent.version == 2
        && !std::fs::read_to_string(control)?
            .split_whitespace()
            .any(|controller| controller == "memory")
    {
        return Err("does not hand the memory controller down".into());
    }
    let dir = parent.dir.join(name);
    std::fs::create_dir(&dir)?;
    let group = MemoryGroup {
        place: Place {
            version: parent.version,
            dir: dir.clone(),
        },
    };
    let limit = match parent.version {
        1 => "memory.limit_in_bytes",
        _ => "memory.max",
    };
    std::fs::write(dir.join(limit), limit_bytes.to_string())?;
    Ok(group)
}

/// Removes groups of runs that were killed; the kernel refuses where anything still runs.
fn remove_left_behind(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(NAME))
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another run may have been faster.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Where a group could be made, best first, from the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn places(groups: &str, mounts: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for mount in mounts.lines() {
        let Some((fields, kind)) = mount.split_once(" - ") else {
            continue;
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let kind: Vec<&str> = kind.split_whitespace().collect();
        let (Some(root), Some(point)) = (fields.get(3), fields.get(4)) else {
            continue;
        };
        let own = |controller: &str| {
            groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let listed = parts.next()?.split(',').any(|name| name == controller);
                let path = parts.next()?;
                // A mount of a part of the tree, as containers have, shows paths below its root only.
                let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
                listed.then(|| Path::new(point).join(below.trim_start_matches('/')))
            })
        };
        match kind.as_slice() {
            ["cgroup", _, options, ..] if options.split(',').any(|option| option == "memory") => {
                places.extend(own("memory").map(|dir| Place { version: 1, dir }));
            }
            ["cgroup2", ..] => {
                // In version 2 a group that has processes cannot hand controllers down: an ancestor may.
                let Some(dir) = own("") else { continue };
                places.extend(
                    dir.ancestors()
                        .take_while(|dir| dir.starts_with(point))
                        .map(|dir| Place {
                            version: 2,
                            dir: dir.to_path_buf(),
                        }),
                );
            }
            _ => {}
        }
    }
    places.sort_by_key(|place| place.version);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(groups: &str, mounts: &str) -> Vec<(u8, String)> {
        places(groups, mounts)
            .into_iter()
            .map(|place| (place.version, place.dir.display().to_string()))
            .collect()
    }

    #[test]
    fn a_version_1_group_goes_below_our_own() {
        let groups = "9:name=systemd:/\n4:memory:/work/7\n1:cpu:/\n0::/\n";
        let mounts = "30 29 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      33 29 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        assert_eq!(
            found(groups, mounts),
            [(1, "/sys/fs/cgroup/memory/work/7".to_owned())]
        );
    }

    #[test]
    fn a_container_sees_its_part_of_the_tree() {
        let groups = "4:cpu,memory:/docker/abc/inner\n";
        let mounts = "33 29 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory,cpu\n";
        assert_eq!(
            found(groups, mounts),
            [(1, "/sys/fs/cgroup/memory/inner".to_owned())]
        );
    }

    #[test]
    fn a_version_2_group_goes_below_our_own_or_an_ancestor() {
        let groups = "0::/user.slice/run.scope\n";
        let mounts = "30 24 0:25 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            found(groups, mounts),
            [
                (2, "/sys/fs/cgroup/user.slice/run.scope".to_owned()),
                (2, "/sys/fs/cgroup/user.slice".to_owned()),
                (2, "/sys/fs/cgroup".to_owned())
            ]
        );
    }

    #[test]
    fn a_version_2_parent_must_hand_the_controller_down() {
        let dir = tempfile::tempdir().unwrap();
        let parent = Place {
            version: 2,
            dir: dir.path().to_path_buf(),
        };
        let control = dir.path().join("cgroup.subtree_control");
        std::fs::write(&control, "cpu io\n").unwrap();
        let refused = make(&parent, "group", 1 << 20).unwrap_err().to_string();
        assert!(refused.contains("does not hand"), "{refused}");
        std::fs::write(&control, "cpu memory\n").unwrap();
        let group = make(&parent, "group", 1 << 20).unwrap();
        let limit = std::fs::read_to_string(dir.path().join("group/memory.max")).unwrap();
        assert_eq!(limit, "1048576");
        // On a plain file system the limit is a file that must go before the directory can.
        std::fs::remove_file(dir.path().join("group/memory.max")).unwrap();
        drop(group);
        assert!(!dir.path().join("group").exists());
    }
}
