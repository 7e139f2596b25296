//! Paths: so deep or so long that a record has no room for them, or beginning where no root is.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::act::{self, Folder, Strings, c};
use crate::agent::{assert_fields, event, field, of, ready};

/// Makes folders in each other below `folder`, and runs the program in the last of them, by a user without rights and
/// by its bare name. Returns its process's number.
fn run_below(folder: &Path, names: &[CString], program: &Path) -> u32 {
    let (folder, program) = [folder, program].map(|path| c(path.as_os_str().as_bytes())).into();
    let texts = [c("payload")];
    let strings = Strings::new(&texts);
    let (pid, status) = act::forked(|| {
        // SAFETY: system calls that concern this process alone, which has one thread; the paths end in zeros.
        unsafe {
            let mut is_there = libc::chdir(folder.as_ptr()) == 0;
            for name in names {
                libc::mkdir(name.as_ptr(), 0o755);
                is_there &= libc::chdir(name.as_ptr()) == 0;
            }
            if !is_there || libc::link(program.as_ptr(), c"payload".as_ptr()) != 0 {
                return 42;
            }
        }
        act::exec(c"./payload", &strings)
    });
    assert_eq!(status, 0);
    pid
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().map(|texts| texts.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// An attacker hides his folder below 700 others. Seen: the whole path.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_program_in_a_deep_folder() {
    ready();
    let folder = Folder::new();
    let program = folder.executable("program", &fs::read("/bin/true").unwrap());
    let pid = run_below(&folder.0, &vec![c("d"); 700], &program);
    let inner = format!("{}{}", folder.0.display(), "/d".repeat(700));
    assert_fields(
        &of("exec", pid),
        json!({
            "process.name": "payload",
            "process.executable": format!("{inner}/payload"),
            "process.working_directory": inner,
            "lapwing.process.executable_file": null,
            "lapwing.process.working_directory_file": null,
        }),
    );
}

/// An attacker prepares folders of long names, so that what there is no room for is just what lies above `/usr/lib`.
/// Seen: where the path begins, that names are missing, and nothing that passes for a path below `/usr/lib`.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_path_for_which_there_is_no_room() {
    ready();
    for above in [vec![c("usr"), c("lib")], vec![c("d"); 100]] {
        let folder = Folder::new();
        let program = folder.executable("program", &fs::read("/bin/true").unwrap());
        let mut names = above;
        names.extend((0..46).map(|number| c(format!("{number:03}{}", "a".repeat(252)))));
        let event = of("exec", run_below(&folder.0, &names, &program));
        for (path, file) in [
            ("process.executable", "lapwing.process.executable_file"),
            ("process.working_directory", "lapwing.process.working_directory_file"),
        ] {
            let seen = field(&event, path).as_str().unwrap();
            assert!(seen.starts_with(folder.0.to_str().unwrap()) && seen.contains("/.../"), "{seen}");
            assert_eq!(texts(field(&event, file)), ["cut"], "{seen}");
        }
        assert_fields(&event, json!({"process.name": "payload"}));
    }
}

/// What a shell script made a program say of itself, which it ran with this first argument.
fn by_script(script: &str, arguments: &[&Path], marker: &str) -> Option<Value> {
    ready();
    let status = Command::new("sh").args(["-c", script, "sh"]).args(arguments).status().expect("a shell");
    if status.code() == Some(77) {
        lapwing_stage::skipped("this kernel gives namespaces of users to root alone");
        return None;
    }
    assert!(status.success(), "{status}");
    Some(event(marker, |event| {
        event["event"]["action"] == "exec" && texts(&event["process"]["args"]).contains(&marker)
    }))
}

/// An attacker mounts a file over another, opens it, takes the mount away and runs what he opened. Seen: the file's
/// name, its path on its file system, and that it is attached nowhere.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_program_on_a_mount_that_is_gone() {
    let folder = Folder::new();
    let program = folder.executable("payload", &fs::read("/bin/true").unwrap());
    let over = folder.executable("over", b"");
    let script = r#"unshare -Urm true || exit 77
        exec unshare -Urm sh -c 'mount --bind "$1" "$2" && exec 9<"$2" && umount -l "$2" && exec /proc/self/fd/9 a-gone-mount' sh "$1" "$2""#;
    let Some(event) = by_script(script, &[&program, &over], "a-gone-mount") else { return };
    let path = field(&event, "process.executable").as_str().unwrap();
    assert!(path.starts_with(".../") && path.ends_with("/payload"), "{path}");
    assert_fields(
        &event,
        json!({"process.name": "payload", "lapwing.process.executable_file": ["detached"]}),
    );
}

/// An attacker prepares a folder that looks like a root, mounts it, and takes the mount away while he is in it. Seen: no
/// path that others have, and that it is attached nowhere.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_folder_that_passes_for_the_root() {
    let folder = Folder::new();
    let bin = folder.0.join("usr/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy("/bin/true", bin.join("curl")).unwrap();
    let script = r#"unshare -Urm true || exit 77
        exec unshare -Urm sh -c 'mount --bind "$1" "$1" && cd "$1" && umount -l "$1" && exec ./usr/bin/curl a-false-root' sh "$1""#;
    let Some(event) = by_script(script, &[&folder.0], "a-false-root") else { return };
    for (path, file) in [
        ("process.executable", "lapwing.process.executable_file"),
        ("process.working_directory", "lapwing.process.working_directory_file"),
    ] {
        let seen = field(&event, path).as_str().unwrap();
        assert!(seen.starts_with("..."), "{seen}");
        assert_eq!(texts(field(&event, file)), ["detached"], "{seen}");
    }
    assert_fields(&event, json!({"process.name": "curl"}));
}

/// An attacker makes a namespace of mounts whose root is a folder of his own, and runs a program there from outside.
/// Seen: that the path is one of another namespace.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_program_in_another_namespace_of_mounts() {
    let folder = Folder::new();
    let root = folder.0.join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::copy("/bin/true", root.join("usr/bin/curl")).unwrap();
    let script = r#"unshare -Urm true || exit 77
        mkfifo "$2/up" "$2/down"
        unshare -m --propagation private sh -c 'mount --bind "$1" "$1" && cd "$1" && mkdir -p old && pivot_root . old &&
            exec 9</usr/bin/curl && echo up >"/old$2/up" && read line <"/old$2/down"' sh "$1" "$2" &
        read line <"$2/up"
        "/proc/$!/root/usr/bin/curl" a-foreign-root
        echo down >"$2/down"; wait"#;
    let Some(event) = by_script(script, &[&root, &folder.0], "a-foreign-root") else { return };
    let path = field(&event, "process.executable").as_str().unwrap();
    assert!(path.starts_with("..."), "{path}");
    assert_fields(
        &event,
        json!({"process.name": "curl", "lapwing.process.executable_file": ["other_mount_namespace"]}),
    );
}

/// An attacker gives a memfd a name with slashes. Seen: the whole name.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_file_in_memory_with_folders_in_its_name() {
    use std::os::fd::AsRawFd as _;
    ready();
    let file = act::memfd("x/usr/bin/curl", &fs::read("/bin/true").unwrap());
    let pid = act::run(format!("/proc/self/fd/{}", file.as_raw_fd()), &[b"innocent"]);
    assert_fields(
        &of("exec", pid),
        json!({
            "process.name": "memfd:x/usr/bin/curl",
            "process.executable": "/memfd:x/usr/bin/curl (deleted)",
            "lapwing.process.executable_file": ["anonymous"],
        }),
    );
}

/// An attacker runs a script by a link of his own, and the script makes the link lead to another one at once. Seen: the
/// path of what ran; or, where the link is another by the time at which it is looked up, that the path is not verified,
/// so that it satisfies no exclusion.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_script_by_a_link_of_ones_own() {
    ready();
    let folder = Folder::new();
    let inner = folder.0.join("inner");
    fs::create_dir(&inner).unwrap();
    let (link, other) = (inner.join("link"), folder.executable("other", b"#!/bin/sh\n"));
    let change = format!("#!/bin/sh\nln -sfn {} {}\nexec /bin/true\n", other.display(), link.display());
    let changing = folder.executable("inner/changing", change.as_bytes());
    let harmless = folder.executable("inner/harmless", b"#!/bin/sh\nexec /bin/true\n");
    let shell = Path::new("/bin/sh").canonicalize().unwrap();
    let (path, texts) = (c(link.as_os_str().as_bytes()), [c("link")]);
    let strings = Strings::new(&texts);
    for script in [&harmless, &changing] {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(script, &link).unwrap();
        for path in [&inner, script, &link] {
            std::os::unix::fs::lchown(path, Some(65534), Some(65534)).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        let (pid, status) = act::forked(|| {
            // SAFETY: it has no preconditions.
            unsafe { libc::setuid(65534) };
            act::exec(&path, &strings)
        });
        assert_eq!(status, 0);
        let is_script = |event: &Value| {
            event["event"]["action"] == "exec"
                && event["process"]["pid"] == pid
                && !event["lapwing"]["process"]["script"].is_null()
        };
        let event = event("the script", is_script);
        let is_verified = field(&event, "lapwing.process.script.mark").is_null();
        assert!(is_verified || script == &changing, "{event}");
        let expected = if is_verified {
            json!({"process.executable": [script, shell], "lapwing.process.opened_executable": null})
        } else {
            json!({"lapwing.process.opened_executable": [shell]})
        };
        assert_fields(&event, expected);
    }
}
