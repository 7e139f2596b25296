//! Containers, by the paths of their control groups.

use smol_str::SmolStr;

/// Digits of a container's id, as every runtime but the oldest makes them.
const ID_DIGITS: usize = 64;
/// Digits of a pod's id, without hyphens; a static pod's has none.
const POD_DIGITS: usize = 32;

/// A container, as its control group tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: SmolStr,
    /// What made it, where the name says so.
    pub(super) runtime: Option<&'static str>,
    /// The unique id of the pod of Kubernetes that it belongs to.
    pub(super) pod: Option<SmolStr>,
}

/// Words in names of control groups, and the runtimes whose they are.
const RUNTIMES: [(&str, &str); 6] = [
    ("docker", "docker"),
    ("libpod", "podman"),
    ("cri-containerd", "containerd"),
    ("containerd", "containerd"),
    ("crio", "cri-o"),
    ("lxc", "lxc"),
];

/// The container whose control group has this path; the innermost where one runs in another.
///
/// Docker and Podman write `docker-ID.scope` or `docker/ID`, containerd and CRI-O `cri-containerd-ID.scope`, kubelet
/// without systemd `kubepods/…/ID`: what they share is the id itself as the last word of a folder's name. Amazon ECS
/// with its own task id adds a number to it, and CRI-O keeps its monitor beside the container.
pub(super) fn of(cgroup: &str) -> Option<Container> {
    let mut folders = cgroup.rsplit('/');
    let (name, id) = folders.by_ref().find_map(|folder| Some((folder, id(folder)?)))?;
    let runtime = |name: &str| {
        let known = RUNTIMES.iter().find(|(word, _)| {
            name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', ':']))
        });
        known.map(|(_, runtime)| *runtime)
    };
    // With the id in one folder the runtime may be the name of the one above; after a colon it is systemd's slice.
    let named = name.split_once(':').map_or(name, |(_, rest)| rest);
    let above = folders.clone().next();
    let pod = name.split(':').chain(folders).find_map(pod);
    Some(Container { id, runtime: runtime(named).or_else(|| above.and_then(runtime)), pod })
}

/// The id of the container that a folder is named after.
fn id(folder: &str) -> Option<SmolStr> {
    let name = folder.strip_suffix(".scope").unwrap_or(folder);
    let word = name.rsplit(['-', ':', '_']).next()?;
    let is_monitor = name.contains("conmon");
    let is_id =
        word.len() == ID_DIGITS && word.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && !is_monitor).then(|| word.into()).or_else(|| task(name))
}

/// The pod that a folder is named after: `podUID`, or systemd's slice, in which the hyphens are underscores.
fn pod(folder: &str) -> Option<SmolStr> {
    let name = folder.strip_suffix(".slice").unwrap_or(folder);
    let word = match name.rsplit_once("-pod") {
        Some((_, word)) if name.starts_with("kubepods") => word,
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
        for path in [
            "/",
            "/system.slice/ssh.service",
            "/user.slice/user-1000.slice/session-1.scope",
            &format!("/machine.slice/libpod-conmon-{hex}.scope"),
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
