//! Containers, by the paths of their control groups.

use smol_str::SmolStr;

/// Digits of a container's id, as every runtime but the oldest makes them.
const ID_DIGITS: usize = 64;

/// The id of the container whose control group has this path; the innermost where one runs in another.
///
/// Docker and Podman write `docker-ID.scope` or `docker/ID`, containerd and CRI-O `cri-containerd-ID.scope`, kubelet
/// without systemd `kubepods/…/ID`: what they share is the id itself as the last word of a folder's name. Amazon ECS
/// with its own task id adds a number to it, and CRI-O keeps its monitor beside the container.
pub(super) fn id(cgroup: &str) -> Option<SmolStr> {
    cgroup.rsplit('/').find_map(|folder| {
        let name = folder.strip_suffix(".scope").unwrap_or(folder);
        let word = name.rsplit(['-', ':', '_']).next()?;
        let is_monitor = name.contains("conmon");
        let is_id =
            word.len() == ID_DIGITS && word.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        (is_id && !is_monitor).then(|| word.into()).or_else(|| task(name))
    })
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
        for path in [
            format!("/docker/{hex}"),
            format!("/system.slice/docker-{hex}.scope"),
            format!("/machine.slice/libpod-{hex}.scope/container"),
            format!("/kubepods/burstable/pod6c8e7d5f-1b2a-4c3d-8e9f-0a1b2c3d4e5f/{hex}"),
            format!("/kubepods.slice/kubepods-pod6c8e.slice/cri-containerd-{hex}.scope"),
            format!("/kubepods.slice/kubepods-pod6c8e.slice/crio-{hex}.scope"),
            format!("/system.slice/containerd.service/kubepods-pod6c8e.slice:cri-containerd:{hex}"),
            format!("/ecs/6c8e7d5f1b2a4c3d8e9f0a1b2c3d4e5f/{hex}"),
        ] {
            assert_eq!(id(&path).as_deref(), Some(hex.as_str()), "{path}");
        }
        let task = "6c8e7d5f1b2a4c3d8e9f0a1b2c3d4e5f-1234567890";
        assert_eq!(id(&format!("/ecs/6c8e7d5f1b2a4c3d8e9f0a1b2c3d4e5f/{task}")).as_deref(), Some(task));
        for path in [
            "/",
            "/system.slice/ssh.service",
            "/user.slice/user-1000.slice/session-1.scope",
            &format!("/machine.slice/libpod-conmon-{hex}.scope"),
        ] {
            assert_eq!(id(path), None, "{path}");
        }
    }
}
