//! Detection of the memory that this process may use: the machine's, or a container's limit.

use std::fs;
use std::path::{Component, Path, PathBuf};

const MIB: u64 = 1024 * 1024;

/// Returns the default of `server.unverified_bytes`: a quarter of the memory, between 16 and 256 MiB.
pub(crate) fn default_unverified_bytes() -> usize {
    // Unknown memory, as on a system without /proc, gives the minimum.
    let quarter = memory_limit(Path::new("/")).unwrap_or(0) / 4;
    usize::try_from(quarter.clamp(16 * MIB, 256 * MIB)).unwrap_or(usize::MAX)
}

/// Returns the smallest of the machine's memory and the limits of the process's control groups and their ancestors.
///
/// `root` is the directory that contains `proc` and `sys`, another one in tests.
fn memory_limit(root: &Path) -> Option<u64> {
    let machine = machine_memory(root);
    let group_limits = cgroup_limit_files(root).into_iter().filter_map(|file| {
        // "max" in version 2 stands for unlimited, and fails to parse. Version 1 has a huge number instead, and `min`
        // chooses the machine's memory.
        let text = fs::read_to_string(file).ok()?;
        text.trim().parse().ok()
    });
    group_limits.chain(machine).min()
}

fn machine_memory(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Returns the files with the limits of the process's control groups, in the hierarchies of both cgroup versions.
fn cgroup_limit_files(root: &Path) -> Vec<PathBuf> {
    let read = |file| fs::read_to_string(root.join(file)).unwrap_or_default();
    let (memberships, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut files = Vec::new();
    for line in memberships.lines() {
        // The line is `0::/path` in version 2, and `4:memory:/path` in version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let file = match controllers {
            "" => "memory.max",
            _ if list_contains(controllers, "memory") => "memory.limit_in_bytes",
            _ => continue,
        };
        let mount = mounts
            .lines()
            .find_map(|mount| parse_mount(mount, controllers));
        let Some((mount_root, mount_point)) = mount else {
            continue;
        };
        // Inside a container the mount may show only the container's own group, as the hierarchy's root, while `path`
        // is the name outside. A path that is not below the mount's root therefore means the root itself.
        let relative_path = Path::new(path)
            .strip_prefix(mount_root)
            .unwrap_or("".as_ref());
        // `/../other` is the path of a group outside the container's view. Its file would be read from a wrong place.
        let is_inside = relative_path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let relative_path = if is_inside {
            relative_path
        } else {
            "".as_ref()
        };
        let mount_point = root.join(mount_point.trim_start_matches('/'));
        // An ancestor's limit applies to all groups below it.
        let ancestors = relative_path
            .ancestors()
            .map(|group| mount_point.join(group).join(file));
        files.extend(ancestors);
    }
    files
}

fn list_contains(list: &str, word: &str) -> bool {
    list.split(',').any(|item| item == word)
}

/// Returns root and mount point of a hierarchy, if `line` of `mountinfo` is its mount.
///
/// Empty `controllers` stand for the hierarchy of version 2.
fn parse_mount<'a>(line: &'a str, controllers: &str) -> Option<(&'a str, &'a str)> {
    let (mount, fs_fields) = line.split_once(" - ")?;
    let mut fs_fields = fs_fields.split(' ');
    let is_hierarchy = match fs_fields.next()? {
        "cgroup2" => controllers.is_empty(),
        "cgroup" => !controllers.is_empty() && list_contains(fs_fields.nth(1)?, "memory"),
        _ => false,
    };
    // Fields before the separator: mount ID, parent ID, device, root, mount point.
    let mut mount = mount.split(' ').skip(3);
    is_hierarchy.then_some((mount.next()?, mount.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 1024 * MIB;

    fn limit_of(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        memory_limit(root.path())
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:        1048576 kB\nMemFree: 1 kB\n",
    );
    const V2: (&str, &str) = (
        "proc/self/mountinfo",
        "24 1 0:21 / /proc rw - proc proc rw\n31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n",
    );
    const V1: (&str, &str) = (
        "proc/self/mountinfo",
        "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    );

    #[test]
    fn memory_limit_without_cgroups_is_machine_memory() {
        assert_eq!(limit_of(&[]), None);
        assert_eq!(limit_of(&[MEMINFO]), Some(MACHINE));
    }

    #[test]
    fn cgroup_v2_limit_is_smallest_of_ancestors() {
        let cgroup = ("proc/self/cgroup", "0::/system.slice/replyhook.service\n");
        let max = (
            "sys/fs/cgroup/system.slice/replyhook.service/memory.max",
            "max\n",
        );
        let slice = ("sys/fs/cgroup/system.slice/memory.max", "268435456\n");
        assert_eq!(limit_of(&[MEMINFO, V2, cgroup, max]), Some(MACHINE));
        assert_eq!(
            limit_of(&[MEMINFO, V2, cgroup, max, slice]),
            Some(256 * MIB)
        );
        let inner = (
            "sys/fs/cgroup/system.slice/replyhook.service/memory.max",
            "134217728\n",
        );
        assert_eq!(
            limit_of(&[MEMINFO, V2, cgroup, inner, slice]),
            Some(128 * MIB)
        );
        let large = ("sys/fs/cgroup/system.slice/memory.max", "17179869184\n");
        assert_eq!(limit_of(&[MEMINFO, V2, cgroup, large]), Some(MACHINE));
        // The container's own group is the root.
        let root = ("proc/self/cgroup", "0::/\n");
        let limit = ("sys/fs/cgroup/memory.max", "268435456\n");
        assert_eq!(limit_of(&[MEMINFO, V2, root, limit]), Some(256 * MIB));
        let outside = ("proc/self/cgroup", "0::/../other\n");
        assert_eq!(limit_of(&[MEMINFO, V2, outside, limit]), Some(256 * MIB));
    }

    #[test]
    fn cgroup_v1_limit_is_smallest_of_ancestors() {
        let cgroup = (
            "proc/self/cgroup",
            "5:cpu:/\n4:memory:/docker/abc/inner\n0::/\n",
        );
        let unlimited = (
            "sys/fs/cgroup/memory/inner/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
        assert_eq!(limit_of(&[MEMINFO, V1, cgroup, unlimited]), Some(MACHINE));
        assert_eq!(
            limit_of(&[MEMINFO, V1, cgroup, unlimited, limit]),
            Some(256 * MIB)
        );
    }
}
