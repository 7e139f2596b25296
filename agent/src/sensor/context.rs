//! What an alert is told beyond its events: the whole of the process, its ancestors, hashes of what they run, and
//! which of their standard descriptors is the very socket.
//!
//! This reads files and `/proc`, which nothing on the way of an event does: it is asked only when there is an alert.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use lapwing_engine::{Event, Fields, Value, field};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use sha2::{Digest, Sha256};
use smol_str::{SmolStr, format_smolstr};

use super::clock::Clock;
use super::decode::Decoder;
use super::image::Image;
use super::process::{Process, Table};
use super::snapshot;
use crate::clock::changed;
use crate::source::Context;

/// Largest executable that is hashed. Reading it holds up the sensor, so this bounds how long.
const HASH_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most hashes that are remembered.
const HASHES_MAX: usize = 256;

/// Hashes of executables, the one that was asked for last at the end.
#[derive(Default)]
pub(super) struct Hashes(Vec<(FileId, SmolStr)>);

/// A file with this content: what changes when it is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Everything that is known of the event's process.
pub(super) fn of(event: &Event, table: &Table, decoder: &Decoder, hashes: &mut Hashes) -> Context {
    let key = event.text(field!("process.entity_id")).and_then(|id| table.key(id));
    let Some(process) = key.and_then(|key| table.get(key)) else {
        let mut fields = Fields::new();
        fields.set(field!("lapwing.process.context"), "unknown");
        return Context { fields, ancestors: Vec::new() };
    };
    let image = image_at(process, event);
    let mut fields = decoder.describe(table, process, image);
    fields.set(field!("lapwing.process.context"), "complete");
    let hash = image.and_then(|image| hashes.of(process, image, decoder.clock));
    fields.set_some(field!("process.hash.sha256"), hash);
    if image.is_none_or(|image| !Arc::ptr_eq(image, &process.image)) {
        let next = &process.image;
        fields.set(field!("lapwing.process.next.executable"), next.executable.clone());
        fields.set(field!("lapwing.process.next.command_line"), next.command_line.clone());
    }
    if let Some(socket) = event.get(field!("lapwing.socket.inode")) {
        describe_holders(table, process, &socket.to_text(), &mut fields);
    }
    let ancestors = table.ancestors(process.key).map(|ancestor| {
        let mut fields = decoder.describe_alone(table, ancestor);
        fields.set_some(field!("process.hash.sha256"), hashes.of(ancestor, &ancestor.image, decoder.clock));
        fields
    });
    Context { ancestors: ancestors.collect(), fields }
}

/// The program that a process ran when the event happened, for it may run another by now: `nc -e sh` is a shell a
/// moment after it has connected. `None` where it is not kept any more.
fn image_at<'a>(process: &'a Process, event: &Event) -> Option<&'a Arc<Image>> {
    let text = |id| event.text(id).unwrap_or_default();
    let (executable, command_line) =
        (text(field!("process.executable")), text(field!("process.command_line")));
    let is_it = |image: &&Arc<Image>| image.is(executable, command_line);
    std::iter::once(&process.image).chain(&process.previous).find(is_it)
}

/// Tells which standard descriptors are the socket: those of the process, now and as its program started with them,
/// and those of the processes that it made.
fn describe_holders(table: &Table, process: &Process, socket: &str, fields: &mut Fields) {
    let mut own = descriptors(process, socket);
    for (index, name) in STDIO.into_iter().enumerate() {
        let started = process.stdio.is_some_and(|stdio| {
            stdio[index].mode & 0o170_000 == 0o140_000 && stdio[index].inode.to_string() == socket
        });
        if started && !own.contains(&name) {
            own.push(name);
        }
    }
    fields.set(field!("lapwing.socket.stdio"), Value::texts(own));
    let others = table.children(process.key).filter_map(|child| {
        let held = descriptors(child, socket);
        let name = child.image.name.to_text();
        (!held.is_empty()).then(|| format_smolstr!("{} ({name}): {}", child.key.pid, held.join(", ")))
    });
    fields.set(field!("lapwing.socket.held_by"), Value::texts(others));
}

const STDIO: [&str; 3] = ["stdin", "stdout", "stderr"];

/// Which standard descriptors of a living process are this socket.
fn descriptors(process: &Process, socket: &str) -> Vec<&'static str> {
    let wanted = format!("socket:[{socket}]");
    let is_it = |number: &usize| {
        fs::read_link(format!("/proc/{}/fd/{number}", process.key.pid))
            .is_ok_and(|target| target.as_os_str() == &*wanted)
    };
    (0..STDIO.len()).filter(is_it).map(|number| STDIO[number]).collect()
}

impl Hashes {
    /// The hash of what a process runs or ran; `None` where it is too large, gone, or no longer what it was.
    fn of(&mut self, process: &Process, image: &Arc<Image>, clock: Clock) -> Option<SmolStr> {
        let file = executable(process, image, clock)?;
        let metadata =
            file.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() <= HASH_BYTES_MAX)?;
        let id = FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        let hash = match self.0.iter().position(|(known, _)| *known == id) {
            Some(index) => self.0.remove(index).1,
            None => hash(file)?,
        };
        if self.0.len() == HASHES_MAX {
            self.0.remove(0);
        }
        self.0.push((id, hash.clone()));
        Some(hash)
    }
}

/// The file that a process runs. What runs no more is looked for where it was, and must be the same inode, unchanged
/// since the process was made. The service sees fewer files than the host (`PrivateTmp=`), and so begins at init's root;
/// that one may be closed to it.
fn executable(process: &Process, image: &Arc<Image>, clock: Clock) -> Option<File> {
    let own = format!("/proc/{}/exe", process.key.pid);
    // It may run another program by now, the record of which is still to be read.
    let is_it = |path: PathBuf| path.as_os_str() == image.executable.as_str();
    if snapshot::read(process.key).is_some() && fs::read_link(&own).is_ok_and(is_it) {
        return File::open(own).ok();
    }
    let made = clock.wall(process.start).as_nanos();
    ["/proc/1/root", "/"].into_iter().find_map(|root| {
        let file = open_below(root, &image.executable).ok()?;
        let metadata = file.metadata().ok()?;
        let is_as_before = || metadata.ino() == image.file_key.inode && changed(&metadata) <= made;
        image.file_key.is(&metadata).unwrap_or_else(is_as_before).then_some(file)
    })
}

/// Opens a file by its path from a root. Nothing is followed at its end; what was put in its place shows by its inode.
fn open_below(root: &str, path: &str) -> nix::Result<File> {
    let root = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    // Opening a pipe that took the file's place must not hold up anything.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    openat(root, path.trim_start_matches('/'), flags, Mode::empty()).map(File::from)
}

fn hash(file: File) -> Option<SmolStr> {
    let mut hasher = Sha256::new();
    let mut chunk = [0; 16 * 1024];
    // A file that grows while it is read is not what was asked for beyond this.
    let mut file = file.take(HASH_BYTES_MAX);
    loop {
        match file.read(&mut chunk).ok()? {
            0 => break,
            count => hasher.update(&chunk[..count]),
        }
    }
    Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sensor::host::Host;

    /// This test's own process and a child of it, as an alert about them would have them.
    #[test]
    fn an_alert_has_hashes_ancestors_and_who_holds_the_socket() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", theirs.as_raw_fd())).unwrap();
        let inode: i64 = link.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();

        let host = Host::new();
        let mut table = Table::new(&host.boot_id);
        let mut decoder = Decoder::new(host);
        for running in snapshot::all(u64::MAX) {
            table.add(running.origin);
        }
        let mut hashes = Hashes::default();
        let mut context_of = |pid| {
            let key = table.by_pid(pid).unwrap().key;
            let mut event = decoder.already_running(&table, key, super::super::clock::now()).unwrap();
            event.set(field!("lapwing.socket.inode"), inode);
            of(&event, &table, &decoder, &mut hashes)
        };
        let (its, own) = (context_of(child.id()), context_of(std::process::id()));
        let executable = fs::read(format!("/proc/{}/exe", child.id())).unwrap();
        drop(ours);
        child.wait().unwrap();

        let hash: String = Sha256::digest(executable).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(its.fields.get(field!("process.hash.sha256")), Some(&hash.into()));
        assert_eq!(its.fields.get(field!("lapwing.process.context")), Some(&"complete".into()));
        assert_eq!(its.fields.get(field!("lapwing.socket.stdio")), Some(&Value::texts(["stdin"])));
        let parent = its.ancestors.first().unwrap();
        assert_eq!(parent.get(field!("process.pid")), Some(&std::process::id().into()));
        assert_eq!(own.fields.get(field!("lapwing.socket.stdio")), None, "this process holds it no more");
        let held = own.fields.get(field!("lapwing.socket.held_by")).unwrap().to_text();
        assert_eq!(held, format!("{} (cat): stdin", child.id()));
    }

    #[test]
    fn what_is_not_known_is_said_so() {
        let host = Host::new();
        let table = Table::new(&host.boot_id);
        let decoder = Decoder::new(host);
        let event = Event::new(Default::default(), Fields::new(), Vec::new());
        let context = of(&event, &table, &decoder, &mut Hashes::default());
        assert_eq!(context.fields.get(field!("lapwing.process.context")), Some(&"unknown".into()));
        assert!(context.ancestors.is_empty());
    }
}
