//! Memory that this process may use: the machine's, or less in a container.

use std::fs;
use std::path::{Component, Path, PathBuf};

const MIB: u64 = 1024 * 1024;

/// Default of `server.unverified_bytes`: a quarter of the memory there is, within bounds.
pub(crate) fn default_unverified_bytes() -> usize {
    let quarter = limit(Path::new("/")).unwrap_or(0) / 4;
    usize::try_from(quarter.clamp(16 * MIB, 256 * MIB)).unwrap_or(usize::MAX)
}

/// The least of the machine's memory and the limits of the process's control groups and their ancestors, as the files under
/// `root` say.
fn limit(root: &Path) -> Option<u64> {
    let machine = machine(root);
    let groups = groups(root).into_iter().filter_map(|file| {
        // "max", and in version 1 a number beyond any memory, are no limit.
        let text = fs::read_to_string(file).ok()?;
        text.trim().parse().ok()
    });
    groups.chain(machine).min()
}

fn machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Files with the limits of the process's control groups, in the hierarchies of both versions.
fn groups(root: &Path) -> Vec<PathBuf> {
    let read = |file| fs::read_to_string(root.join(file)).unwrap_or_default();
    let (own, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut files = Vec::new();
    for line in own.lines() {
        // 0::/path in version 2, 4:memory:/path in version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let file = match controllers {
            "" => "memory.max",
            _ if has(controllers, "memory") => "memory.limit_in_bytes",
            _ => continue,
        };
        let mount = mounts
            .lines()
            .find_map(|mount| mount_of(mount, controllers));
        let Some((mount_root, mount_point)) = mount else {
            continue;
        };
        // A container may see its own group as the root of the hierarchy, under the name that it has outside.
        let below = Path::new(path)
            .strip_prefix(mount_root)
            .unwrap_or("".as_ref());
        let is_below = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let below = if is_below { below } else { "".as_ref() };
        let mount_point = root.join(mount_point.trim_start_matches('/'));
        let ancestors = below
            .ancestors()
            .map(|group| mount_point.join(group).join(file));
        files.extend(ancestors);
    }
    files
}

fn has(list: &str, word: &str) -> bool {
    list.split(',').any(|item| item == word)
}

/// Root and mount point of a hierarchy, if a line of `mountinfo` is its mount: that of version 2 where `controllers` is empty.
fn mount_of<'a>(line: &'a str, controllers: &str) -> Option<(&'a str, &'a str)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let is_it = match kind.next()? {
        "cgroup2" => controllers.is_empty(),
        "cgroup" => !controllers.is_empty() && has(kind.nth(1)?, "memory"),
        _ => false,
    };
    let mut mount = mount.split(' ').skip(3);
    is_it.then_some((mount.next()?, mount.next()?))
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
        limit(root.path())
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
    fn machine_counts_without_control_groups() {
        assert_eq!(limit_of(&[]), None);
        assert_eq!(limit_of(&[MEMINFO]), Some(MACHINE));
    }

    #[test]
    fn least_limit_of_all_ancestors_counts_in_version_2() {
        let own = ("proc/self/cgroup", "0::/system.slice/replyhook.service\n");
        let max = (
            "sys/fs/cgroup/system.slice/replyhook.service/memory.max",
            "max\n",
        );
        let slice = ("sys/fs/cgroup/system.slice/memory.max", "268435456\n");
        assert_eq!(limit_of(&[MEMINFO, V2, own, max]), Some(MACHINE));
        assert_eq!(limit_of(&[MEMINFO, V2, own, max, slice]), Some(256 * MIB));
        let inner = (
            "sys/fs/cgroup/system.slice/replyhook.service/memory.max",
            "134217728\n",
        );
        assert_eq!(limit_of(&[MEMINFO, V2, own, inner, slice]), Some(128 * MIB));
        let large = ("sys/fs/cgroup/system.slice/memory.max", "17179869184\n");
        assert_eq!(limit_of(&[MEMINFO, V2, own, large]), Some(MACHINE));
        // A container that sees itself as the root.
        let root = ("proc/self/cgroup", "0::/\n");
        let limit = ("sys/fs/cgroup/memory.max", "268435456\n");
        assert_eq!(limit_of(&[MEMINFO, V2, root, limit]), Some(256 * MIB));
        let outside = ("proc/self/cgroup", "0::/../other\n");
        assert_eq!(limit_of(&[MEMINFO, V2, outside, limit]), Some(256 * MIB));
    }

    #[test]
    fn least_limit_of_all_ancestors_counts_in_version_1() {
        let own = (
            "proc/self/cgroup",
            "5:cpu:/\n4:memory:/docker/abc/inner\n0::/\n",
        );
        let none = (
            "sys/fs/cgroup/memory/inner/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
        assert_eq!(limit_of(&[MEMINFO, V1, own, none]), Some(MACHINE));
        assert_eq!(limit_of(&[MEMINFO, V1, own, none, limit]), Some(256 * MIB));
    }
}
