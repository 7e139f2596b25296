//! What an alert has beyond its events: all fields of the process, its ancestors, the files that they run, and which of
//! their standard descriptors is the connection's socket.
//!
//! This runs only for alerts, not for every event. What may vanish is read at once, by calls that wait for no disk and
//! no other process; what takes longer is done by the [evidence](crate::evidence) stage.

use std::fs;
use std::sync::Arc;

use lapwing_engine::{Event, Fields, Value, field};
use smol_str::{SmolStr, format_smolstr};

use super::clock::Clock;
use super::decode::Decoder;
use super::image::Image;
use super::process::{Process, STDIO, Table, is_socket};
use super::script::Script;
use super::{snapshot, thread};
use crate::alert::Context;
use crate::program::{Descriptor, FileKey, Missing, Program, is_fresh};

/// Most processes that are checked for whether they hold a connection, beside the one that made it: those that it made
/// last.
const HOLDERS_MAX: usize = 16;
/// Most processes through whose root a file is searched for.
const WITNESSES_MAX: usize = 3;

/// The context of the event's process.
pub(super) fn of(event: &Event, table: &Table, decoder: &Decoder) -> Context {
    let key = event.text(field!("process.entity_id")).and_then(|id| table.key(id));
    let Some(process) = key.and_then(|key| table.get(key)) else {
        let mut fields = Fields::new();
        fields.set(field!("lapwing.process.context"), "unknown");
        return Context { fields, ..Context::default() };
    };
    let image = image_at(process, event, decoder.clock);
    let mut fields = decoder.describe(table, process, image);
    fields.set(field!("lapwing.process.context"), "complete");
    if image.is_none_or(|image| !Arc::ptr_eq(image, &process.image)) {
        let next = &process.image;
        fields.set(field!("lapwing.process.next.executable"), next.executable.clone());
        fields.set(field!("lapwing.process.next.command_line"), next.command_line.clone());
    }
    if let Some(socket) = event.get(field!("lapwing.socket.inode")) {
        describe_holders(table, process, &socket.to_text(), &mut fields);
    }
    let mut programs = vec![program(table, process, image, decoder.clock, &[])];
    let mut ancestors = Vec::new();
    for ancestor in table.ancestors(process.key) {
        ancestors.push(decoder.describe_alone(table, ancestor));
        programs.push(program(table, ancestor, Some(&ancestor.image), decoder.clock, &programs));
    }
    programs.extend(image.and_then(|image| script(table, process, image, decoder.clock)));
    Context { fields, ancestors, programs, user: process.credentials.actor }
}

/// The program that a process ran at the event, because it may run another by now: `nc -e sh` is a shell a moment after
/// it has connected. `None` if it is not kept any more. A program with the same path and arguments may be another one:
/// if it began after the event, it is not the event's.
fn image_at<'a>(process: &'a Process, event: &Event, clock: Clock) -> Option<&'a Arc<Image>> {
    let time = clock.since_boot(event.time());
    let text = |id| event.text(id).unwrap_or_default();
    let (executable, command_line) =
        (text(field!("process.executable")), text(field!("process.command_line")));
    let is_it = |image: &&Arc<Image>| image.since <= time && image.is(executable, command_line);
    std::iter::once(&process.image).chain(&process.previous).find(is_it)
}

/// The file of a program, and how to find it. It is opened through the process that runs it; if that runs another
/// program by now, whose record is not read yet, the file's name does not match, and it is not hashed.
fn program(
    table: &Table,
    process: &Process,
    image: Option<&Arc<Image>>,
    clock: Clock,
    others: &[Result<Program, Missing>],
) -> Result<Program, Missing> {
    let image = image.filter(|image| image.file_key.is_known()).ok_or(Missing::Unknown)?;
    let file = image.file_key;
    let is_open = |other: &Program| other.file == file && other.running.is_ok();
    // A file that is already open for this alert needs no second descriptor.
    let running = if others.iter().flatten().any(is_open) { Err(Missing::Gone) } else { running(process) };
    Ok(of_file(table, process, image, clock, (file, &image.executable), running))
}

/// The script of an interpreter, after all other files.
fn script(table: &Table, process: &Process, image: &Image, clock: Clock) -> Option<Result<Program, Missing>> {
    let Script { path, key, .. } = image.script_file.as_ref()?;
    let program = || of_file(table, process, image, clock, (*key, path), Err(Missing::Gone));
    Some(key.is_known().then(program).ok_or(Missing::Doubtful))
}

/// A file that was opened to run a program, and its path.
fn of_file(
    table: &Table,
    process: &Process,
    image: &Image,
    clock: Clock,
    (file, path): (FileKey, &SmolStr),
    running: Result<Descriptor, Missing>,
) -> Program {
    let since = clock.wall(image.since).as_nanos();
    let is_fresh = |changed| image.since != 0 && is_fresh(changed, since);
    Program {
        file,
        is_fresh: file.changed.is_some_and(is_fresh),
        running,
        path: path.clone(),
        witnesses: witnesses(table, process),
    }
}

/// The file that a process runs now.
fn running(process: &Process) -> Result<Descriptor, Missing> {
    let folder = thread::folder(process.key.pid).ok_or(Missing::Gone)?;
    let opened = Descriptor::open(&folder.join("exe")).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Missing::Gone,
        Some(libc::EMFILE | libc::ENFILE) => Missing::Busy,
        _ => Missing::Unreadable,
    });
    opened?.ok_or(Missing::Busy)
}

/// Ancestors in the same namespace of mounts, the process itself first. None where that is init's, or is not known.
fn witnesses(table: &Table, process: &Process) -> Vec<u32> {
    let own = process.mount_namespace();
    if own == 0 || table.by_pid(1).is_none_or(|init| init.mount_namespace() == own) {
        return Vec::new();
    }
    let family = std::iter::once(process).chain(table.ancestors(process.key));
    family.filter(|one| one.mount_namespace() == own).map(|one| one.key.pid).take(WITNESSES_MAX).collect()
}

/// Finds which standard descriptors are the socket: those of the process, now and as its program started with them,
/// and those of the processes that it made.
fn describe_holders(table: &Table, process: &Process, socket: &str, fields: &mut Fields) {
    let mut own = descriptors(process, socket);
    for (index, name) in STDIO.into_iter().enumerate() {
        let started = process
            .stdio
            .is_some_and(|stdio| is_socket(&stdio[index]) && stdio[index].inode.to_string() == socket);
        if started && !own.contains(&name) {
            own.push(name);
        }
    }
    fields.set(field!("lapwing.socket.stdio"), Value::texts(own));
    let mut children: Vec<_> = table.children(process.key).collect();
    children.sort_unstable_by_key(|child| std::cmp::Reverse(child.start));
    if children.len() > HOLDERS_MAX {
        fields.set(field!("lapwing.process.context"), "partial");
    }
    let others = children.into_iter().take(HOLDERS_MAX).filter_map(|child| {
        let held = descriptors(child, socket);
        let name = child.image.name.to_text();
        (!held.is_empty()).then(|| format_smolstr!("{} ({name}): {}", child.key.pid, held.join(", ")))
    });
    fields.set(field!("lapwing.socket.held_by"), Value::texts(others));
}

/// Which standard descriptors of a living process are this socket.
fn descriptors(process: &Process, socket: &str) -> Vec<&'static str> {
    let Some(folder) = thread::folder(process.key.pid) else { return Vec::new() };
    let wanted = format!("socket:[{socket}]");
    let is_it = |number: &usize| {
        fs::read_link(folder.join(format!("fd/{number}"))).is_ok_and(|target| target.as_os_str() == &*wanted)
    };
    let held: Vec<_> = (0..STDIO.len()).filter(is_it).map(|number| STDIO[number]).collect();
    // Its pid may be reused by now. If it is not at this moment, it was not before.
    if held.is_empty() || snapshot::lives(process.key) { held } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::digest::hex;
    use crate::evidence;
    use crate::sensor::host::Host;

    /// This test's own process and its child, as in an alert about them.
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
        let mut context_of = |pid| {
            let key = table.by_pid(pid).unwrap().key;
            let mut event = decoder.already_running(&table, key, super::super::clock::now()).unwrap();
            event.set(field!("lapwing.socket.inode"), inode);
            let mut context = of(&event, &table, &decoder);
            evidence::complete_now(&mut context);
            context
        };
        let (its, own) = (context_of(child.id()), context_of(std::process::id()));
        let executable = fs::read(format!("/proc/{}/exe", child.id())).unwrap();
        drop(ours);
        child.wait().unwrap();

        let hash = hex(&Sha256::digest(executable));
        assert_eq!(its.fields.get(field!("process.hash.sha256")), Some(&hash.into()));
        assert_eq!(its.fields.get(field!("lapwing.process.hash_skipped")), None);
        let has_hash = |process: &Fields| process.get(field!("process.hash.sha256")).is_some();
        // The test itself may be too large to be hashed.
        let context = if its.ancestors.iter().all(has_hash) { "complete" } else { "partial" };
        assert_eq!(its.fields.get(field!("lapwing.process.context")), Some(&context.into()));
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
        let context = of(&event, &table, &decoder);
        assert_eq!(context.fields.get(field!("lapwing.process.context")), Some(&"unknown".into()));
        assert!(context.ancestors.is_empty());
    }
}
