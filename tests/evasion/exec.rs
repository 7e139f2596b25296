//! Programs: started in ways that hide which they are.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::act::{self, Folder, Strings, c, true_path};
use crate::agent::{all, assert_fields, field, is, of, ready};
use crate::alerts::{IMDS_REQUEST, REVERSE_SHELL, alerts_by, value};

/// An attacker runs a program that is in no folder by its descriptor's path, as `fexecve` does where the kernel has no
/// `execveat`. Seen: that the program is in memory and by which name it was put there, and no number for a name.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_the_path_of_a_descriptor() {
    ready();
    let file = act::memfd("payload", &fs::read("/bin/true").unwrap());
    // Open for writing it would not be run, and the path of this process is the child's own.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let pid = act::run(path, &[b"innocent"]);
    assert_fields(
        &of("exec", pid),
        json!({
            "process.name": "memfd:payload",
            "process.executable": "/memfd:payload (deleted)",
            "process.args": ["innocent"],
        }),
    );
}

/// An attacker runs a script that lies only in memory. Seen: its interpreter, and the descriptor that it reads.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_script_in_memory() {
    ready();
    let file = act::memfd("payload", b"#!/bin/sh\nexit 0\n");
    // SAFETY: it takes a number; the interpreter opens the descriptor itself, so that it must stay open.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
    let texts = [c("innocent")];
    let strings = Strings::new(&texts);
    let (pid, status) = act::forked(|| act::execveat(file.as_raw_fd(), c"", &strings, libc::AT_EMPTY_PATH));
    assert_eq!(status, 0);
    let shell = Path::new("/bin/sh").canonicalize().unwrap();
    let path = format!("/dev/fd/{}", file.as_raw_fd());
    assert_fields(
        &of("exec", pid),
        json!({
            "process.executable": shell,
            "process.args": ["/bin/sh", path],
            "lapwing.process.script.filename": path,
        }),
    );
}

/// An attacker calls `execve` in a thread that is not the first; the kernel gives that thread the process's number and
/// ends all others. Seen: one process from its fork to its end, which is reported once.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn in_a_thread_that_is_not_the_first() {
    extern "C" fn run(program: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: it points to a program that lives until this process runs another.
        let (path, strings) = unsafe { &*program.cast::<(CString, Strings)>() };
        act::exec(path, strings);
        std::ptr::null_mut()
    }
    ready();
    let texts = [c("true"), c("by a thread")];
    let mut program = (c("/bin/true"), Strings::new(&texts));
    let (pid, status) = act::forked(|| {
        let mut thread = 0;
        // SAFETY: the thread's argument lives as long as this process, which waits here to be replaced.
        unsafe {
            libc::pthread_create(&raw mut thread, std::ptr::null(), run, (&raw mut program).cast());
            libc::pause();
        }
        1
    });
    assert_eq!(status, 0);
    let ids: Vec<Value> =
        ["fork", "exec", "end"].map(|action| field(&of(action, pid), "process.entity_id").clone()).into();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    assert_fields(&of("exec", pid), json!({"process.pid": pid, "process.args": ["true", "by a thread"]}));
    let (later, _) = act::forked(|| 0);
    of("end", later);
    assert_eq!(all(|event| is(event, "end", pid)).len(), 1);
}

/// An attacker has the dynamic loader run his program, so that the kernel runs the loader and nothing else. Seen: the
/// program is among the names and the arguments, and rules that name it alert.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn through_the_dynamic_loader() {
    let Some(loader) = loader() else {
        return lapwing_stage::skipped("no dynamic loader is where it is looked for");
    };
    ready();
    let path = loader.to_str().unwrap();
    let pid = act::run(path, &[b"ld.so", b"--argv0", b"innocent", b"/bin/true", b"x"]);
    let name = loader.canonicalize().unwrap();
    let names = [&name, &loader, Path::new("/bin/true")].map(|path| path.file_name().unwrap().to_str());
    let event = of("exec", pid);
    let found: Vec<_> = field(&event, "process.name").as_array().unwrap().iter().map(Value::as_str).collect();
    assert!(found.contains(&names[0]) && found.contains(&names[2]), "{found:?}");
    assert_fields(
        &event,
        json!({"process.executable": name, "process.args": ["ld.so", "--argv0", "innocent", "/bin/true", "x"]}),
    );
    let script = format!("{path} PROGRAM; exit $?");
    for alert in alerts_by(&script, "thread", &[REVERSE_SHELL, IMDS_REQUEST]) {
        assert!(value(&alert, "process.name").as_array().unwrap().contains(&json!("nc")));
    }
}

/// The loader of this machine's programs.
fn loader() -> Option<PathBuf> {
    let places = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    places.into_iter().map(PathBuf::from).find(|place| place.exists())
}

/// An attacker's script names another script as its interpreter, which names a third. Seen: what the kernel runs in the
/// end, the file that was executed, and everything between in the arguments.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_chain_of_scripts() {
    ready();
    let folder = Folder::new();
    let last = folder.executable("last", b"#!/bin/sh\nexit 0\n");
    let middle = folder.executable("middle", format!("#!{} -m\n", last.display()).as_bytes());
    let first = folder.executable("first", format!("#!{}\n", middle.display()).as_bytes());
    let pid = act::run(first.to_str().unwrap(), &[b"innocent", b"one"]);
    let shell = Path::new("/bin/sh").canonicalize().unwrap();
    assert_fields(
        &of("exec", pid),
        json!({
            "process.name": [shell.file_name().unwrap().to_str(), Some("first")],
            "process.executable": [first, shell],
            "process.args": ["/bin/sh", last, "-m", middle, first, "one"],
            "lapwing.process.script.filename": first,
        }),
    );
}

/// An attacker registers an interpreter of his choice with the kernel, for files of a kind of his own. Seen: the
/// interpreter as what runs, and the file as a name and an argument.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn by_binfmt_misc() {
    ready();
    let folder = Folder::new();
    let Some(kind) = Kind::new(&folder.0.join("binfmt")) else {
        return lapwing_stage::skipped("this kernel has no binfmt_misc");
    };
    let name = format!("innocent.{}", kind.name);
    let file = folder.executable(&name, b"anything");
    let pid = act::run(file.to_str().unwrap(), &[b"whatever", b"one"]);
    assert_fields(
        &of("exec", pid),
        json!({
            "process.name": ["true", name],
            "process.executable": [json!(file), json!(true_path())],
            "process.args": ["/bin/true", file, "one"],
            "lapwing.process.script.filename": file,
        }),
    );
}

/// A kind of file that the kernel runs by `/bin/true`, until this is dropped.
struct Kind {
    name: String,
    place: PathBuf,
}

impl Kind {
    fn new(place: &Path) -> Option<Self> {
        fs::create_dir(place).unwrap();
        let mounted = Command::new("mount").args(["-t", "binfmt_misc", "none"]).arg(place).status();
        if !mounted.is_ok_and(|status| status.success()) {
            return None;
        }
        let kind = Self { name: format!("lw{}", std::process::id()), place: place.to_owned() };
        let line = format!(":{0}:E::{0}::/bin/true:", kind.name);
        fs::write(place.join("register"), line).unwrap();
        Some(kind)
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        // All but the kind itself is gone with the folder.
        let _ = fs::write(self.place.join(&self.name), "-1");
        let _ = Command::new("umount").arg(&self.place).status();
    }
}
