//! Row `exec`: program, name, arguments, working directory.

use std::ffi::CStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::act::{self, Folder, Strings, c, true_path};
use crate::agent::{assert_fields, event, events, field, is, names, of, ready};

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_exec_event_has_every_field() {
    ready();
    // The plainest case, in which sensors that look at the system call's entry see no arguments: the child of a fork
    // never touched the pages in which they lie.
    let (path, texts) = (c("/bin/true"), [c("/bin/true"), c("--static")]);
    let strings = Strings::new(&texts);
    let (pid, status) = act::forked_as_leader(|| act::exec(&path, &strings));
    assert_eq!(status, 0);
    let event = of("exec", pid);
    let own = std::process::id();
    assert_fields(
        &event,
        json!({
            "event.category": ["process"],
            "event.type": ["start"],
            "event.kind": "event",
            "event.module": "endpoint",
            "event.dataset": "endpoint.events.process",
            "event.outcome": "unknown",
            "message": "Endpoint process event",
            "host.os.type": "linux",
            "host.id": fs::read_to_string("/etc/machine-id").unwrap().trim(),
            "process.pid": pid,
            "process.name": "true",
            "process.executable": true_path(),
            "process.args": ["/bin/true", "--static"],
            "process.args_count": 2,
            "process.command_line": "/bin/true --static",
            "process.working_directory": std::env::current_dir().unwrap(),
            "process.user.id": "0",
            "process.user.name": "root",
            "process.group.id": "0",
            "process.real_user.id": "0",
            "user.id": "0",
            "user.name": "root",
            "group.name": "root",
            "process.parent.pid": own,
            "process.parent.executable": std::env::current_exe().unwrap(),
            "process.group_leader.same_as_process": true,
            "process.session_leader.same_as_process": true,
            "process.session_leader.args": ["/bin/true", "--static"],
            "process.previous.executable": std::env::current_exe().unwrap(),
            "lapwing.process.comm": "true",
            "lapwing.process.namespace.mnt": namespace("mnt"),
            "lapwing.process.namespace.net": namespace("net"),
            "lapwing.process.namespace.pid": namespace("pid"),
            "lapwing.process.namespace.user": namespace("user"),
            "lapwing.process.namespace.uts": namespace("uts"),
        }),
    );
    assert!(field(&event, "process.parent.args").as_array().is_some_and(|args| !args.is_empty()));
    assert_eq!(field(&event, "process.Ext.ancestry")[0], *field(&event, "process.parent.entity_id"));
    let stamps = ["@timestamp", "event.created", "process.start"].map(|name| event_time(&event, name));
    assert!(stamps[2] <= stamps[0] && stamps[0] <= stamps[1], "made, run, received: {stamps:?}");
    let mut found = Vec::new();
    names(&event["process"]["thread"], "", &mut found);
    assert_eq!(found, ["capabilities.effective", "capabilities.permitted"]);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn entity_ids_outlive_an_exec() {
    ready();
    let pid = act::run("/bin/sh", &[b"sh", b"-c", b"exec /bin/true again"]);
    let ids: Vec<_> = [("fork", "?"), ("exec", "sh"), ("exec", "/bin/true"), ("end", "/bin/true")]
        .into_iter()
        .map(|(action, first)| {
            let event = crate::agent::event(&format!("{action} {first}"), |event| {
                crate::agent::is(event, action, pid) && (first == "?" || event["process"]["args"][0] == first)
            });
            field(&event, "process.entity_id").clone()
        })
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    let again = act::run("/bin/true", &[b"true"]);
    assert_ne!(*field(&of("exec", again), "process.entity_id"), ids[0]);
}

/// Both files that the kernel opened, of the script itself and as the parent of what it runs.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_script_has_two_names_and_two_paths() {
    ready();
    let folder = Folder::new();
    let script = folder.executable("tool", b"#!/bin/sh -e\n/bin/true child\ntrue\n");
    let path = script.to_str().unwrap();
    let pid = act::run(path, &[b"whatever", b"one"]);
    let shell = Path::new("/bin/sh").canonicalize().unwrap();
    assert_fields(
        &of("exec", pid),
        json!({
            "process.name": [shell.file_name().unwrap().to_str(), Some("tool")],
            "process.executable": [path, shell],
            "process.args": ["/bin/sh", "-e", path, "one"],
            "process.args_count": 4,
            "lapwing.process.commands_from": "file",
            "lapwing.process.script.filename": path,
            "lapwing.process.script.mark": null,
            "lapwing.process.opened_executable": null,
            "lapwing.process.comm": "tool",
        }),
    );
    let child = event("what the script runs", |event| {
        event["event"]["action"] == "exec" && event["process"]["parent"]["pid"] == pid
    });
    assert_fields(&child, json!({ "process.parent.executable": [path, shell] }));
}

/// By a relative name, through a link of root's own: the path that it leads to.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_script_is_named_by_where_links_lead() {
    ready();
    let folder = Folder::new();
    let script = folder.executable("tool", b"#!/bin/sh\ntrue\n");
    std::os::unix::fs::symlink("tool", folder.0.join("link")).unwrap();
    let mut child = Command::new("./link").current_dir(&folder.0).spawn().unwrap();
    let pid = child.id();
    assert!(child.wait().unwrap().success());
    let shell = Path::new("/bin/sh").canonicalize().unwrap();
    assert_fields(
        &of("exec", pid),
        json!({
            "process.executable": [script, shell],
            "lapwing.process.script.filename": "./link",
            "lapwing.process.script.mark": null,
        }),
    );
}

/// A shell whose standard input is a connection, and one that reads from a pipe: the connection, and the pipe's maker.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_shell_on_a_connection_says_whose_it_is() {
    ready();
    let listener = act::listener("127.0.0.1");
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, local) = (stream.peer_addr().unwrap().port(), stream.local_addr().unwrap().port());
    drop(listener.accept().unwrap());
    let mut command = Command::new("/bin/sh");
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(stream))).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    assert_fields(
        &of("exec", pid),
        json!({
            "lapwing.process.commands_from": "stdin",
            "lapwing.socket.stdio": ["stdin"],
            "lapwing.socket.transport": "tcp",
            "lapwing.socket.peer.ip": "127.0.0.1",
            "lapwing.socket.peer.port": peer,
            "lapwing.socket.local.port": local,
        }),
    );
    let mut child = Command::new("/bin/sh").stdin(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let piped = of("exec", pid);
    assert_fields(&piped, json!({ "lapwing.process.stdin.type": "pipe", "lapwing.socket.inode": null }));
    assert_eq!(
        field(&piped, "lapwing.process.stdin.maker.entity_id"),
        field(&piped, "process.parent.entity_id")
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_link_has_two_names() {
    ready();
    let folder = Folder::new();
    let link = folder.0.join("nc");
    std::os::unix::fs::symlink(true_path(), &link).unwrap();
    let pid = act::run(link.to_str().unwrap(), &[b"x"]);
    assert_fields(
        &of("exec", pid),
        json!({"process.name": ["true", "nc"], "process.executable": true_path(), "process.args": ["x"]}),
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_memfd_is_marked() {
    ready();
    let file = act::memfd("payload", &fs::read("/bin/true").unwrap());
    let arguments = [c("innocent")];
    let strings = Strings::new(&arguments);
    let descriptor = file.as_raw_fd();
    let (pid, status) = act::forked(|| act::execveat(descriptor, c"", &strings, libc::AT_EMPTY_PATH));
    assert_eq!(status, 0);
    assert_fields(
        &of("exec", pid),
        json!({
            "process.name": "memfd:payload",
            "process.executable": "/memfd:payload (deleted)",
            "lapwing.process.executable_file": ["anonymous"],
            "process.args": ["innocent"],
            "process.title": field(&of("fork", pid), "process.command_line"),
        }),
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_deleted_executable_is_marked() {
    ready();
    let folder = Folder::new();
    let path = folder.executable("gone", &fs::read("/bin/true").unwrap());
    let file = fs::File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let arguments = [c("gone")];
    let strings = Strings::new(&arguments);
    let descriptor = file.as_raw_fd();
    let (pid, status) = act::forked(|| act::execveat(descriptor, c"", &strings, libc::AT_EMPTY_PATH));
    assert_eq!(status, 0);
    let deleted = format!("{} (deleted)", path.display());
    assert_fields(
        &of("exec", pid),
        json!({
            "process.name": "gone",
            "process.executable": deleted,
            "lapwing.process.executable_file": ["deleted"],
        }),
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_path_below_an_open_folder_is_resolved() {
    ready();
    let folder = Folder::new();
    let path = folder.executable("tool", &fs::read("/bin/true").unwrap());
    let open = fs::File::open(&folder.0).unwrap();
    let arguments = [c("tool")];
    let strings = Strings::new(&arguments);
    let descriptor = open.as_raw_fd();
    let (pid, status) = act::forked(|| act::execveat(descriptor, c"tool", &strings, 0));
    assert_eq!(status, 0);
    assert_fields(&of("exec", pid), json!({"process.name": "tool", "process.executable": path}));
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn long_arguments_are_whole_and_longer_ones_marked() {
    ready();
    let whole = vec![b'a'; 32 * 1024];
    let pid = act::run("/bin/true", &[b"true", &whole, b"last"]);
    let event = of("exec", pid);
    assert_eq!(field(&event, "process.args")[1].as_str().map(str::len), Some(whole.len()));
    assert_fields(&event, json!({"process.args_count": 3, "lapwing.process.args_truncated": null}));

    let long = vec![b'b'; 100 * 1024];
    let pid = act::run("/bin/true", &[b"true", &long, b"last"]);
    let event = of("exec", pid);
    let args = field(&event, "process.args").as_array().unwrap();
    assert_eq!(args.len(), 2, "the last argument did not fit");
    assert!(args[1].as_str().is_some_and(|arg| arg.len() >= 32 * 1024 && long.starts_with(arg.as_bytes())));
    assert_fields(
        &event,
        json!({
            "process.args_count": 3,
            "lapwing.process.args_truncated": true,
            "process.Ext.command_line_truncated": true,
        }),
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn odd_arguments_keep_their_bounds() {
    ready();
    let pid = act::run("/bin/true", &[b"", b"", b"a\nb", b"\x1b[2J", b"\xff\xfe", "ü".as_bytes(), b""]);
    assert_fields(
        &of("exec", pid),
        json!({
            "process.args": ["", "", "a\nb", "\u{1b}[2J", "\u{fffd}\u{fffd}", "ü", ""],
            "process.args_count": 7,
            "process.command_line": "  a\nb \u{1b}[2J \u{fffd}\u{fffd} ü ",
        }),
    );
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn users_and_descriptors_are_those_of_the_program() {
    ready();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let inode = fs::read_link(format!("/proc/self/fd/{}", theirs.as_raw_fd())).unwrap();
    let inode: u64 = inode.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    let folder = Folder::new();
    let mut command = Command::new("/bin/true");
    command.uid(65534).gid(65534).current_dir("/");
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
    command.stdout(Stdio::null()).stderr(fs::File::create(folder.0.join("log")).unwrap());
    let mut child = command.spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    drop(ours);
    let event = of("exec", pid);
    assert_fields(
        &event,
        json!({
            "user.id": "65534",
            "user.name": "nobody",
            "process.user.id": "65534",
            "process.real_user.id": "65534",
            "process.group.id": "65534",
            "process.working_directory": "/",
            "process.thread.capabilities.effective": null,
            "process.parent.user.id": "0",
            "lapwing.process.stdin.type": "socket",
            "lapwing.process.stdin.inode": inode,
            "lapwing.process.stdout.type": "null",
            "lapwing.process.stderr.type": "file",
        }),
    );
}

/// A user who is created just before a program runs as that user. An agent of its own reads a copy of `/etc/passwd`.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_user_who_was_made_just_now_has_a_name() {
    const USER: u32 = 45_678;
    let folder = Folder::new();
    let users = folder.0.join("passwd");
    fs::copy("/etc/passwd", &users).unwrap();
    let (from, to) = (c(users.to_str().unwrap()), c("/etc/passwd"));
    let mut agent = events();
    // SAFETY: system calls alone, on strings that outlive the call.
    unsafe {
        agent.pre_exec(move || {
            let mount = |from: *const libc::c_char, to: &CStr, flags| {
                libc::mount(from, to.as_ptr(), std::ptr::null(), flags, std::ptr::null()) == 0
            };
            let is_done = libc::unshare(libc::CLONE_NEWNS) == 0
                && mount(std::ptr::null(), c"/", libc::MS_REC | libc::MS_PRIVATE)
                && mount(from.as_ptr(), &to, libc::MS_BIND);
            if is_done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let mut agent = agent.stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().is_some(), "its hooks are attached");
    let mut file = fs::OpenOptions::new().append(true).open(&users).unwrap();
    writeln!(file, "case.odd-Üser$:x:{USER}:{USER}::/:/bin/sh").unwrap();
    let mut child = Command::new("/bin/true").uid(USER).gid(USER).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let event = lines.map(|line| serde_json::from_str(&line).unwrap()).find(|event| is(event, "exec", pid));
    assert_fields(&event.unwrap(), json!({"user.id": USER.to_string(), "user.name": "case.odd-Üser$"}));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn sessions_have_leaders() {
    ready();
    let path = c("/bin/true");
    let texts = [c("true")];
    let strings = Strings::new(&texts);
    let (pid, status) = act::forked(|| {
        // SAFETY: it has no preconditions.
        unsafe { libc::setsid() };
        act::exec(&path, &strings)
    });
    assert_eq!(status, 0);
    let event = of("exec", pid);
    let id = field(&event, "process.entity_id");
    assert_fields(
        &event,
        json!({
            "process.pgid": pid,
            "process.session_leader.pid": pid,
            "process.session_leader.entity_id": id,
            "process.session_leader.same_as_process": true,
            "process.session_leader.args": ["true"],
            "process.group_leader.entity_id": id,
            "process.group_leader.same_as_process": true,
            "process.interactive": false,
            "process.tty.char_device.major": null,
        }),
    );
    assert!(!field(&event, "process.entry_leader.entry_meta.type").is_null());
}

fn event_time(event: &Value, name: &str) -> String {
    let text =
        field(event, name).as_str().unwrap_or_else(|| panic!("{name} of {event:#}")).trim_end_matches('Z');
    let (seconds, fraction) = text.split_once('.').unwrap();
    format!("{seconds}.{fraction:0<9}")
}

fn namespace(name: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino()
}
