//! Namespaces and control groups: the parts of a container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::act::{self, Folder, Strings, c, true_path};
use crate::agent::{assert_fields, event, field, of, ready};

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn namespaces_are_reported_and_paths_are_the_containers_own() {
    ready();
    let folder = Folder::new();
    let inner = folder.executable("payload", &fs::read("/bin/true").unwrap());
    let marker = format!("marker-{}", std::process::id());
    // As a container's runtime does it: new namespaces, a root of its own, and the old one gone.
    let script = "set -e
        mount -t tmpfs none \"$1\"; mkdir \"$1/bin\" \"$1/old\"; cp \"$2\" \"$1/bin/payload\"
        for place in /lib /lib64 /usr; do mkdir -p \"$1$place\"; mount --rbind \"$place\" \"$1$place\" || true; done
        cd \"$1\"; pivot_root . old; exec /bin/payload \"$3\"";
    let source = folder.0.join("source");
    fs::rename(&inner, &source).unwrap();
    let root = folder.0.join("root");
    fs::create_dir(&root).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "sh", "-c", script, "sh"]);
    let output = command.arg(&root).arg(&source).arg(&marker).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let event = event("the payload in its namespaces", |event| event["process"]["args"][1] == *marker);
    assert_fields(
        &event,
        json!({"process.executable": "/bin/payload", "process.name": "payload", "process.vpid": 1}),
    );
    let own = of("exec", act::run("/bin/true", &[b"true"]));
    for (name, is_new) in
        [("mnt", true), ("pid", true), ("net", true), ("uts", true), ("ipc", true), ("user", false)]
    {
        let name = format!("lapwing.process.namespace.{name}");
        assert_eq!(field(&event, &name) != field(&own, &name), is_new, "{name}");
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_bind_mount_is_walked_through() {
    ready();
    let folder = Folder::new();
    let place = folder.0.join("bound");
    fs::create_dir(&place).unwrap();
    let path = place.join(Path::new(&true_path()).file_name().unwrap());
    let script = "mount --bind \"$(dirname \"$1\")\" \"$2\" && exec \"$3\" walked";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", &true_path()]).arg(&place).arg(&path);
    let mut child = command.spawn().unwrap();
    let pid = child.id();
    assert!(child.wait().unwrap().success());
    let event = event("the bound program", |event| {
        event["process"]["pid"] == pid && event["process"]["args"][1] == "walked"
    });
    assert_fields(&event, json!({"process.executable": path}));
}

/// As a container's files lie: those of its image below, what is written in it above.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn what_was_written_in_a_container_is_marked() {
    ready();
    let folder = Folder::new();
    let marker = format!("layer-{}", std::process::id());
    let script = "set -e
        mount -t tmpfs none \"$1\"; cd \"$1\"; mkdir lower upper work merged
        for name in below changed; do cp \"$2\" lower/$name; done
        mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none merged || exit 42
        merged/below \"$3\"
        cp \"$2\" merged/above; merged/above \"$3\"
        chmod 700 merged/changed; merged/changed \"$3\"
        cp \"$2\" merged/gone; exec 9<merged/gone; rm merged/gone; exec /proc/self/fd/9 \"$3\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&folder.0).arg(true_path()).arg(&marker);
    let output = command.output().unwrap();
    if output.status.code() == Some(42) {
        return lapwing_stage::skipped("this kernel mounts no overlay");
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (name, mark) in [
        ("below", Value::Null),
        ("above", json!(["overlay_upper"])),
        ("changed", json!(["overlay_upper"])),
        ("gone", json!(["deleted", "overlay_upper"])),
    ] {
        let event =
            event(name, |event| event["process"]["name"] == name && event["process"]["args"][1] == *marker);
        assert_eq!(field(&event, "lapwing.process.executable_file"), &mark, "{name}");
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_chroot_does_not_change_the_path() {
    ready();
    let folder = Folder::new();
    let bin = folder.0.join("usr/bin");
    fs::create_dir_all(&bin).unwrap();
    // A program that needs no library: only its path matters.
    fs::copy(std::env::current_exe().unwrap(), bin.join("curl")).unwrap();
    let (root, path) = (c(folder.0.to_str().unwrap()), c("/usr/bin/curl"));
    // These tests themselves, where they need no library; they are not to run in there.
    let texts = [c("curl"), c("--list")];
    let strings = Strings::new(&texts);
    let (pid, _) = act::forked(|| {
        // SAFETY: the path ends in a zero, and its output is discarded.
        unsafe {
            libc::close(1);
            if libc::chroot(root.as_ptr()) != 0 {
                return 1;
            }
        }
        act::exec(&path, &strings)
    });
    let found = of("fork", pid);
    assert_eq!(field(&found, "process.pid"), pid);
    // Without its libraries the program may not have run; then there is no exec, and nothing to be fooled by.
    let run = crate::agent::all(|event| crate::agent::is(event, "exec", pid));
    for event in run {
        assert_fields(&event, json!({"process.executable": bin.join("curl")}));
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_control_group_names_the_container() {
    ready();
    let id = "0123456789abcdef".repeat(3) + &format!("{:016x}", std::process::id());
    let group = cgroup_root().join(format!("docker-{id}.scope"));
    fs::create_dir(&group).unwrap();
    let procs = c(group.join("cgroup.procs").to_str().unwrap());
    let path = c("/bin/true");
    let texts = [c("true")];
    let strings = Strings::new(&texts);
    let (pid, status) = act::forked(|| {
        // SAFETY: path and buffer end where they say; a zero means this process.
        unsafe {
            let file = libc::open(procs.as_ptr(), libc::O_WRONLY);
            if libc::write(file, c"0".as_ptr().cast(), 1) != 1 {
                return 1;
            }
            libc::close(file);
        }
        act::exec(&path, &strings)
    });
    fs::remove_dir(&group).unwrap();
    assert_eq!(status, 0);
    assert_fields(
        &of("exec", pid),
        json!({
            "container.id": id,
            "container.runtime": "docker",
            "lapwing.process.cgroup.path": format!("/docker-{id}.scope"),
        }),
    );
    assert_fields(&of("end", pid), json!({"container.id": id}));
}

/// The hierarchy that identifies containers on this host.
fn cgroup_root() -> PathBuf {
    let places = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(PathBuf::from);
    places.into_iter().find(|place| place.join("cgroup.procs").exists()).expect("control groups")
}
