//! Control groups: more of them than anyone keeps.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::act::{self, Strings, c};
use crate::agent::{all, assert_fields, event, field, ready};

/// A group of a test's own, gone when the test ends.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let places = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(PathBuf::from);
        let place = places.into_iter().find(|place| place.join("cgroup.procs").exists());
        let group = place.expect("control groups").join(name);
        fs::create_dir(&group).expect("a group");
        Self(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Runs a program in this group.
fn run_in(group: &Path) {
    let procs = c(group.join("cgroup.procs").to_str().unwrap());
    let (path, texts) = (c("/bin/true"), [c("churn")]);
    let strings = Strings::new(&texts);
    let (_, status) = act::forked(|| {
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
    assert_eq!(status, 0);
}

/// An attacker, or a host with many short jobs, makes more control groups than are kept: here by names that take the
/// bytes of them all, for to enter a group takes long. Seen: which container the programs of a group that lives on are
/// in, and what they fork, before and after.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn more_groups_than_are_kept() {
    const GROUPS: usize = 340;
    ready();
    let id = "c0ffee".repeat(8) + &format!("{:016x}", std::process::id());
    let group = Group::new(&format!("docker-{id}.scope"));
    let script = r#"echo 0 >"$1/cgroup.procs"; /bin/true "before-$2"; echo; read line; (read line </dev/null); /bin/true "after-$2""#;
    let mut shell = Command::new("sh")
        .args(["-c", script, "sh", group.0.to_str().unwrap(), &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut name = format!("lapwing-churn-{}", std::process::id());
    let mut above = vec![Group::new(&name)];
    for _ in 0..13 {
        name = format!("{name}/{}", "n".repeat(250));
        above.push(Group::new(&name));
    }
    for number in 0..GROUPS {
        run_in(&Group::new(&format!("{name}/{number}")).0);
    }
    // From the lowest up.
    while above.pop().is_some() {}
    shell.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(shell.wait().unwrap().success());
    for when in ["before", "after"] {
        let marker = format!("{when}-{id}");
        let program = event(&marker, |event| {
            event["event"]["action"] == "exec" && event["process"]["args"][1] == json!(marker)
        });
        assert_fields(&program, json!({"container.id": id}));
    }
    let forks = all(|event| {
        event["event"]["action"] == "fork" && event["process"]["parent"]["pid"] == json!(shell.id())
    });
    assert_eq!(forks.len(), 3, "two programs and a subshell");
    assert!(forks.iter().all(|fork| *field(fork, "container.id") == json!(id)), "{forks:?}");
}

/// An attacker moves a process into a container's control group, or out of it, and connects without another program.
/// Seen: the container of that moment.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_process_that_is_moved() {
    ready();
    let id = "decade".repeat(9) + &format!("{:010x}", std::process::id());
    let group = Group::new(&format!("docker-{id}.scope"));
    let listener = act::listener("127.0.0.1");
    let port = listener.local_addr().unwrap().port();
    let script = "import socket, sys
for group in sys.argv[2:]:
    open(group + '/cgroup.procs', 'w').write('0')
    socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close()";
    let (own, root) = (group.0.to_str().unwrap(), group.0.parent().unwrap().to_str().unwrap());
    let mut child =
        Command::new("python3").args(["-c", script, &port.to_string(), own, root]).spawn().unwrap();
    let connected = || {
        let (_, from) = listener.accept().unwrap();
        let of_port = |event: &serde_json::Value| {
            event["event"]["action"] == "connection_attempted" && event["source"]["port"] == from.port()
        };
        event(&format!("the connection from {from}"), of_port)
    };
    assert_fields(&connected(), json!({"container.id": id}));
    assert_fields(&connected(), json!({"container.id": null}));
    assert!(child.wait().unwrap().success());
}

/// An attacker enters a container by its namespaces, without its control group. Seen: the container, and that it was
/// entered.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_container_that_is_entered() {
    ready();
    let id = "facade".repeat(9) + &format!("{:010x}", std::process::id());
    let group = Group::new(&format!("docker-{id}.scope"));
    let script = r#"echo 0 >"$1/cgroup.procs"; exec unshare --mount sh -c "echo; read line""#;
    let mut container = Command::new("sh")
        .args(["-c", script, "sh", group.0.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(container.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let marker = format!("entered-{id}");
    let target = format!("--target={}", container.id());
    let entered = Command::new("nsenter").args([&target, "--mount", "/bin/true", &marker]).status().unwrap();
    assert!(entered.success());
    container.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(container.wait().unwrap().success());
    let is_it = |event: &serde_json::Value| {
        event["event"]["action"] == "exec" && event["process"]["args"][1] == json!(marker)
    };
    assert_fields(&event(&marker, is_it), json!({"container.id": id, "lapwing.container.entered": true}));
}
