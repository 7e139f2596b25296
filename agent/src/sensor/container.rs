//! Containers, by the paths of their control groups.

use smol_str::SmolStr;

/// Digits of an id that a runtime generates.
const ID_DIGITS: usize = 64;
/// Digits of a pod's id, without hyphens; a static pod's has none.
const POD_DIGITS: usize = 32;

/// A container, as its control group names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: SmolStr,
    /// Its runtime, if the name has it.
    pub(super) runtime: Option<&'static str>,
    /// The unique id of its Kubernetes pod.
    pub(super) pod: Option<SmolStr>,
}

/// Words in the names of control groups, and the runtimes that use them.
const RUNTIMES: [(&str, &str); 6] = [
    ("docker", "docker"),
    ("libpod", "podman"),
    ("cri-containerd", "containerd"),
    ("containerd", "containerd"),
    ("crio", "cri-o"),
    ("lxc", "lxc"),
];

/// The position of a container's name in the path, for runtimes in which people choose the name and it is the id.
enum Form {
    /// Between this prefix and suffix in a folder's name.
    Within(&'static str, &'static str),
    /// The folder directly below the folder with this name.
    Below(&'static str),
}

/// The forms of each runtime, by the paths that it writes.
const NAMED: [(Form, &str); 8] = [
    (Form::Within("lxc.payload.", ""), "lxc"),
    (Form::Below("lxc.payload"), "lxc"),
    (Form::Below("lxc"), "lxc"),
    (Form::Within("systemd-nspawn@", ".service"), "systemd-nspawn"),
    (Form::Within("machine-", ".scope"), "systemd-nspawn"),
    (Form::Below("buildkit"), "buildkit"),
    (Form::Below("garden"), "garden"),
    // The default namespace of `ctr`.
    (Form::Below("default"), "containerd"),
];
/// Prefix of the names of virtual machines, which are not containers.
const VIRTUAL_MACHINE: &str = "qemu-";
/// The folder of a runtime's own processes, below the container's folder.
const SUPERVISOR: &str = "supervisor";

/// The container whose control group has this path; the innermost one if containers are nested.
///
/// Docker and Podman write `docker-ID.scope` or `docker/ID`, containerd and CRI-O `cri-containerd-ID.scope`, kubelet
/// without systemd `kubepods/…/ID`. In all of them the id is the last word of a folder's name. Amazon ECS uses its task
/// id with a number, and CRI-O has its monitor next to the container. Others use names instead of ids ([`NAMED`]).
pub(super) fn of(cgroup: &str) -> Option<Container> {
    let mut folders = cgroup.rsplit('/').peekable();
    let mut is_supervisor = false;
    while let Some(folder) = folders.next() {
        let above = folders.peek().copied();
        if let Some(id) = id(folder) {
            let pod = folder.split(':').chain(folders).find_map(pod);
            return Some(Container { id, runtime: runtime_of(folder, above), pod });
        }
        if let Some((id, runtime)) = named(folder, above) {
            let container = Container { id, runtime: Some(runtime), pod: None };
            return (!is_supervisor).then_some(container);
        }
        is_supervisor = folder == SUPERVISOR;
    }
    None
}

/// The runtime of a folder with an id in its name. The runtime's name may be in the folder above; after a colon it is
/// that of systemd's slice.
fn runtime_of(folder: &str, above: Option<&str>) -> Option<&'static str> {
    let runtime = |name: &str| {
        let known = RUNTIMES.iter().find(|(word, _)| {
            name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', ':']))
        });
        known.map(|(_, runtime)| *runtime)
    };
    let named = folder.split_once(':').map_or(folder, |(_, rest)| rest);
    runtime(named).or_else(|| above.and_then(runtime))
}

/// The container's id in the name of a folder.
fn id(folder: &str) -> Option<SmolStr> {
    let name = folder.strip_suffix(".scope").unwrap_or(folder);
    let word = name.rsplit(['-', ':', '_']).next()?;
    let is_monitor = name.contains("conmon");
    let is_id =
        word.len() == ID_DIGITS && word.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && !is_monitor).then(|| word.into()).or_else(|| task(name))
}

/// The container's name in the name of a folder, and its runtime.
fn named(folder: &str, above: Option<&str>) -> Option<(SmolStr, &'static str)> {
    let is_unit = [".service", ".scope", ".slice"].iter().any(|suffix| folder.ends_with(suffix));
    let (name, runtime) = NAMED.iter().find_map(|(form, runtime)| {
        let name = match form {
            Form::Within(before, after) => folder.strip_prefix(before)?.strip_suffix(after)?,
            Form::Below(parent) => (above == Some(parent) && !is_unit).then_some(folder)?,
        };
        Some((unescape(name), *runtime))
    })?;
    (!name.is_empty() && !name.starts_with(VIRTUAL_MACHINE)).then_some((name, runtime))
}

/// A name in which systemd's `\x2d` is a hyphen again.
fn unescape(name: &str) -> SmolStr {
    if name.contains(r"\x2d") { name.replace(r"\x2d", "-").into() } else { name.into() }
}

/// The pod's id in the name of a folder: `podUID`, or systemd's slice, in which the hyphens are underscores.
fn pod(folder: &str) -> Option<SmolStr> {
    let name = folder.strip_suffix(".slice").unwrap_or(folder);
    let word = match name.rsplit_once("-pod") {
        // A kubelet with its own control group adds a prefix.
        Some((slices, word)) if slices.split('-').any(|slice| slice == "kubepods") => word,
        _ => name.strip_prefix("pod")?,
    };
    let is_digit = |digit: u8| digit.is_ascii_hexdigit() || matches!(digit, b'-' | b'_');
    (word.len() >= POD_DIGITS && word.bytes().all(is_digit)).then(|| word.replace('_', "-").into())
}

/// A task of Amazon ECS: 32 digits and the number of the container in it.
fn task(name: &str) -> Option<SmolStr> {
    let (task, number) = name.split_once('-')?;
    let is_task = task.len() == 32 && task.bytes().all(|digit| digit.is_ascii_hexdigit());
    (is_task && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_name_containers_in_their_ways() {
        let hex = "0123456789abcdef".repeat(4);
        const POD: &str = "6c8e7d5f-1b2a-4c3d-8e9f-0a1b2c3d4e5f";
        let slice = format!("kubepods-burstable-pod{}.slice", POD.replace('-', "_"));
        for (path, runtime, pod) in [
            (format!("/docker/{hex}"), Some("docker"), None),
            (format!("/system.slice/docker-{hex}.scope"), Some("docker"), None),
            (format!("/machine.slice/libpod-{hex}.scope/container"), Some("podman"), None),
            (format!("/kubepods/burstable/pod{POD}/{hex}"), None, Some(POD)),
            (format!("/kubepods.slice/{slice}/cri-containerd-{hex}.scope"), Some("containerd"), Some(POD)),
            (format!("/kubepods.slice/{slice}/crio-{hex}.scope"), Some("cri-o"), Some(POD)),
            (
                format!("/system.slice/containerd.service/{slice}:cri-containerd:{hex}"),
                Some("containerd"),
                Some(POD),
            ),
            (
                format!("/kubelet.slice/kubelet-{slice}/cri-containerd-{hex}.scope"),
                Some("containerd"),
                Some(POD),
            ),
            (format!("/default/{hex}"), None, None),
            (format!("/lxc.payload.web1/docker/{hex}"), Some("docker"), None),
            (format!("/ecs/6c8e7d5f1b2a4c3d8e9f0a1b2c3d4e5f/{hex}"), None, None),
            (format!("/kubepods.slice/kubepods-podless.slice/crio-{hex}.scope"), Some("cri-o"), None),
        ] {
            let found = of(&path).unwrap();
            assert_eq!((found.id.as_str(), found.runtime), (hex.as_str(), runtime), "{path}");
            assert_eq!(found.pod.as_deref(), pod, "{path}");
        }
        let task = "6c8e7d5f1b2a4c3d8e9f0a1b2c3d4e5f-1234567890";
        let found = of(&format!("/ecs/6c8e7d5f1b2a4c3d8e9f0a1b2c3d4e5f/{task}")).unwrap();
        assert_eq!(found.id, task);
        for (path, id, runtime) in [
            ("/lxc.payload.web1", "web1", "lxc"),
            ("/lxc/web1/system.slice/ssh.service", "web1", "lxc"),
            (r"/machine.slice/machine-web\x2d1.scope/payload", "web-1", "systemd-nspawn"),
            ("/machine.slice/systemd-nspawn@web1.service/payload", "web1", "systemd-nspawn"),
            ("/default/redis", "redis", "containerd"),
            ("/buildkit/k3v9x2m1q8z7w6y5t4r3e2w1q", "k3v9x2m1q8z7w6y5t4r3e2w1q", "buildkit"),
            ("/garden/6c8e7d5f-1b2a-4c3d-8e9f", "6c8e7d5f-1b2a-4c3d-8e9f", "garden"),
        ] {
            let found = of(path).map(|found| (found.id, found.runtime, found.pod));
            assert_eq!(found, Some((id.into(), Some(runtime), None)), "{path}");
        }
        for path in [
            "/",
            "/system.slice/ssh.service",
            "/user.slice/user-1000.slice/session-1.scope",
            "/lxc",
            "/lxc.monitor.web1",
            "/lxc/init.scope",
            "/system.slice/docker-agent.service",
            &format!("/system.slice/backup-{hex}.service"),
            r"/machine.slice/machine-qemu\x2d1\x2dvm.scope",
            "/machine.slice/machine-.scope",
            "/machine.slice/systemd-nspawn@web1.service/supervisor",
            &format!("/machine.slice/libpod-conmon-{hex}.scope"),
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
