//! A program that runs in a process: the executable, its names, its arguments. A fork shares its parent's.

mod packed;

use lapwing_common::{Span, VARIABLE_BYTES_MAX};
use lapwing_engine::{Texts, Value};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::environment::Wanted;
use super::file;
use super::interpreter::{base, commands_from};
use super::record::ExecRecord;
use super::script::{self, Script};
use crate::budget::Charge;
use crate::program::FileKey;

/// The kernel's suffix of the path of a deleted file.
const DELETED_MARK: &str = " (deleted)";
/// The prefix of memfd paths. The root has no such folder.
const MEMFD: &str = "/memfd:";
/// An executable that was deleted before it ran.
pub(super) const DELETED: &str = "deleted";
/// An executable that never had a name in a file system, such as a memfd.
const ANONYMOUS: &str = "anonymous";
/// An executable in the upper layer of an overlay: in a container, one that was written since its start.
const UPPER: &str = "overlay_upper";
/// A path of which names are missing.
const CUT: &str = "cut";
/// A path that ends at a detached mount: it begins at the root of its file system.
const DETACHED: &str = "detached";
/// A path that ends at the root of another mount namespace than the process's.
const FOREIGN: &str = "other_mount_namespace";
/// Bytes of arguments that are kept of a shortened program.
pub(super) const SHORT_ARGS_BYTES_MAX: usize = 512;
/// Bytes of a thread's name, without its end mark.
const COMM_BYTES: usize = 15;

/// A program with its arguments, as it was started.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Image {
    /// The resolved path of the file that was mapped, from the root of the process's mount namespace.
    #[serde(with = "packed::text")]
    pub(super) executable: SmolStr,
    /// The identity of that file; the default if it is not known.
    pub(super) file_key: FileKey,
    /// When the program began, in nanoseconds since boot; zero where that was before the agent, or its record was lost.
    pub(super) since: u64,
    /// Its base name; if it was run by another name, a script's or a link's, that one second.
    #[serde(with = "packed::value")]
    pub(super) name: Value,
    /// The arguments, empty ones included; bytes that are no UTF-8 are replaced.
    #[serde(with = "packed::args")]
    pub(super) args: Texts,
    /// How many arguments there were, also where some did not fit into the record.
    pub(super) args_count: i64,
    /// The arguments joined by blanks.
    #[serde(skip)]
    pub(super) command_line: SmolStr,
    /// The working directory at the time.
    #[serde(with = "packed::text")]
    pub(super) directory: SmolStr,
    /// The thread's name.
    #[serde(with = "packed::text")]
    pub(super) comm: SmolStr,
    /// The script that was run, where an interpreter runs it.
    #[serde(with = "packed::some")]
    pub(super) script: Option<SmolStr>,
    /// The file of that script.
    pub(super) script_file: Option<Script>,
    /// Where its commands come from, if it is a shell or an interpreter.
    #[serde(skip)]
    pub(super) commands_from: Option<&'static str>,
    /// Whether arguments are missing or cut.
    pub(super) is_cut: bool,
    /// Marks of the mapped file or its path ([`MARKS`]). Except for deleted and unnamed files, they are known only of
    /// programs that started while the agent ran.
    #[serde(with = "packed::some_value")]
    pub(super) file: Option<Value>,
    /// The same of the working directory.
    #[serde(with = "packed::some_value")]
    pub(super) directory_file: Option<Value>,
    /// The wanted variables of its environment at the start, as `NAME=value`.
    #[serde(with = "packed::value")]
    pub(super) env_vars: Value,
    /// Whether the environment was too long or not in memory, so that wanted ones may be missing.
    pub(super) is_env_cut: bool,
    /// Whether arguments were dropped for room.
    pub(super) is_short: bool,
    /// Its bytes, while any process needs it.
    #[serde(skip)]
    pub(super) charge: Charge,
}

impl Image {
    /// The program of an exec.
    pub(super) fn of_exec(record: &ExecRecord<'_>, script: Option<Script>, wanted: &Wanted) -> Self {
        let executable = lossy(&record.path(record.fixed.executable));
        let name = own_name(&executable, record.fixed.executable);
        let filename = lossy(record.text(record.fixed.filename));
        let is_script = record.fixed.interpreter.len != 0;
        let args = args(record.args());
        let name = names(name, called_name(&filename, &args), loaded(&executable, &args));
        Self {
            commands_from: commands_from(&name, &args),
            name,
            executable,
            file_key: file::key(&record.fixed.file),
            since: record.fixed.header.time,
            args_count: record.fixed.args_count.into(),
            command_line: command_line(&args),
            args,
            directory: lossy(&record.path(record.fixed.directory)),
            comm: comm(&record.fixed.task.comm),
            script: is_script.then_some(filename),
            script_file: script,
            is_cut: record.is_cut(),
            file: marks(record.fixed.executable),
            directory_file: marks(record.fixed.directory),
            env_vars: Value::texts(wanted.of(record)),
            is_env_cut: record.is_environment_cut() || record.environment().any(is_cut_variable),
            is_short: false,
            charge: Charge::default(),
        }
    }

    /// The program of a process that was running before, as `/proc` shows it.
    ///
    /// The name by which it was run is not kept there. The kernel sets the thread's name to it, cut to fifteen bytes,
    /// so an argument that begins so is that name; a process that renamed itself has one name then.
    pub(super) fn of_procfs(executable: &str, args: Texts, directory: &str, comm: &str) -> Self {
        let called = args.iter().take(2).map(base).find(|name| {
            name.as_bytes()[..name.len().min(COMM_BYTES)] == *comm.as_bytes() && !comm.is_empty()
        });
        let called = called.map(SmolStr::new);
        let script = args.iter().nth(1).filter(|script| Some(base(script)) == called.as_deref());
        let name = names(executable_name(executable), called.as_deref(), loaded(executable, &args));
        Self {
            commands_from: commands_from(&name, &args),
            executable: executable.into(),
            file_key: FileKey::default(),
            since: 0,
            name,
            args_count: i64::try_from(args.iter().count()).unwrap_or(i64::MAX),
            command_line: command_line(&args),
            script_file: script.map(|script| script::of_argument(script, directory)),
            script: script.map(SmolStr::new),
            args,
            directory: directory.into(),
            comm: comm.into(),
            is_cut: false,
            file: file_of_procfs(executable),
            directory_file: None,
            env_vars: Value::texts::<&str>([]),
            is_env_cut: false,
            is_short: false,
            charge: Charge::default(),
        }
    }

    /// If the record of its start was lost and the process has ended: only the thread's name.
    pub(super) fn unknown(comm: SmolStr) -> Self {
        Self {
            executable: SmolStr::default(),
            file_key: FileKey::default(),
            since: 0,
            name: Value::Text(comm.clone()),
            args: args([]),
            args_count: 0,
            command_line: SmolStr::default(),
            directory: SmolStr::default(),
            comm,
            script: None,
            script_file: None,
            commands_from: None,
            is_cut: true,
            file: None,
            directory_file: None,
            env_vars: Value::texts::<&str>([]),
            is_env_cut: false,
            is_short: false,
            charge: Charge::default(),
        }
    }

    /// The same program with the first of its arguments, and the mark that some are missing.
    pub(super) fn shortened(&self) -> Self {
        let args = self.args.cut(SHORT_ARGS_BYTES_MAX);
        Self { command_line: command_line(&args), args, is_cut: true, is_short: true, ..self.clone() }
    }

    /// Whether it can be shortened.
    pub(super) fn is_long(&self) -> bool {
        self.args.as_ended().len() > SHORT_ARGS_BYTES_MAX
    }

    /// The files that the kernel opened to run it, as far as known: the script, and the mapped file.
    pub(super) fn executables(&self) -> Option<Value> {
        let executable = Some(&self.executable).filter(|executable| !executable.is_empty())?;
        Some(match &self.script_file {
            None => executable.clone().into(),
            Some(script) => Value::texts([&script.path, executable]),
        })
    }

    /// Those of them that are known to have been opened, where others are not.
    pub(super) fn opened_executable(&self) -> Option<&SmolStr> {
        self.script_file.as_ref()?.mark.map(|_| &self.executable)
    }

    /// Whether it is the program of this executable, the first of both, with this command line, as far as it is kept.
    pub(super) fn is(&self, executable: &str, command_line: &str) -> bool {
        let is_line = match self.is_short {
            true => command_line.starts_with(self.command_line.as_str()),
            false => self.command_line == command_line,
        };
        self.script_file.as_ref().map_or(&self.executable, |script| &script.path) == executable && is_line
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.executable, &self.command_line, &self.directory, &self.comm];
        let texts =
            texts.into_iter().chain(&self.script).chain(self.script_file.as_ref().map(|script| &script.path));
        let texts = texts.filter(|text| text.is_heap_allocated()).map(|text| text.len() + 16);
        let values =
            [Some(&self.name), Some(&self.env_vars), self.file.as_ref(), self.directory_file.as_ref()];
        let values = values.into_iter().flatten().map(Value::heap_bytes);
        16 + size_of::<Self>() + self.args.heap_bytes() + texts.chain(values).sum::<usize>()
    }

    /// Derives the parts that are not saved.
    pub(super) fn complete(mut self) -> Self {
        self.command_line = command_line(&self.args);
        self.commands_from = commands_from(&self.name, &self.args);
        self
    }

    /// The name of the file that the kernel opened, if the process has other names too: names of links, scripts,
    /// threads and memfds are chosen by the user. Empty if there is no such file.
    pub(super) fn opened_name(&self) -> Option<&str> {
        let has = |mark| self.file.iter().flat_map(Value::elements).any(|file| file.as_text() == Some(mark));
        let opened = match base(&self.executable) {
            _ if has(ANONYMOUS) => "",
            name if has(DELETED) => name.strip_suffix(DELETED_MARK).unwrap_or(name),
            name => name,
        };
        (self.name.as_text() != Some(opened)).then_some(opened)
    }

    /// Whether only the thread's name is known. A kernel thread has no more.
    pub(super) fn is_unknown(&self) -> bool {
        self.executable.is_empty()
    }
}

/// The words for the marks of a path.
const MARKS: [(u32, &str); 6] = [
    (Span::ANONYMOUS, ANONYMOUS),
    (Span::DELETED, DELETED),
    (Span::UPPER, UPPER),
    (Span::CUT, CUT),
    (Span::DETACHED, DETACHED),
    (Span::FOREIGN, FOREIGN),
];

fn marks(path: Span) -> Option<Value> {
    let names = MARKS.iter().filter(|(mark, _)| path.has(*mark)).map(|(_, name)| *name);
    let names: Vec<_> = names.collect();
    (!names.is_empty()).then(|| Value::texts(names))
}

/// The same from a path as `/proc` shows it, which marks both alike. A memfd has no folder but the root.
fn file_of_procfs(executable: &str) -> Option<Value> {
    let path = executable.strip_suffix(DELETED_MARK)?;
    Some(Value::texts([if path.starts_with(MEMFD) { ANONYMOUS } else { DELETED }]))
}

/// A thread's name as text.
pub(super) fn comm(bytes: &[u8; 16]) -> SmolStr {
    lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// The name of an executable, without its folder and without the mark of a deleted file.
pub(super) fn executable_name(path: &str) -> &str {
    let path = path.strip_suffix(DELETED_MARK).unwrap_or(path);
    // The name of a memfd may contain slashes.
    if path.starts_with(MEMFD) { &path[1..] } else { base(path) }
}

/// The same, if it is known whether the suffix is the kernel's or a part of the name.
fn own_name(path: &str, span: Span) -> &str {
    if span.has(Span::DELETED | Span::ANONYMOUS) { executable_name(path) } else { base(path) }
}

/// The base name by which a file was run. A descriptor's number is no name, nor is `exe`, by which a program runs
/// itself: the name is its first argument then, as for an applet of BusyBox.
fn called_name<'a>(filename: &'a str, args: &'a Texts) -> Option<&'a str> {
    let below_proc = filename.strip_prefix("/proc/").map(|rest| rest.split('/').collect::<Vec<_>>());
    if let Some([_, "exe"] | [_, "task", _, "exe"]) = below_proc.as_deref() {
        return args.iter().next().map(base);
    }
    let below_descriptor = filename.strip_prefix("/dev/fd/").or_else(|| {
        let process = filename.strip_prefix("/proc/")?;
        process.split_once("/fd/").map(|(_, rest)| rest)
    });
    match below_descriptor {
        None => Some(base(filename)),
        // `execveat` with a folder and a path below it.
        Some(rest) => rest.split_once('/').map(|(_, path)| base(path)),
    }
}

fn names(name: &str, called: Option<&str>, loaded: Option<&str>) -> Value {
    let others = [called, loaded].into_iter().flatten().filter(|other| !other.is_empty() && *other != name);
    let mut names = vec![name];
    for other in others {
        if !names.contains(&other) {
            names.push(other);
        }
    }
    if names.len() == 1 { name.into() } else { Value::texts(names) }
}

/// Prefixes of dynamic loaders' file names: glibc's for each machine, before 2.34 with a version, and musl's.
const LOADERS: [&str; 5] = ["ld-linux", "ld-musl-", "ld.so", "ld64.so", "ld-2."];
/// The options of a loader that have a value in the next argument.
const LOADER_OPTIONS: [&str; 7] = [
    "--argv0",
    "--audit",
    "--glibc-hwcaps-mask",
    "--glibc-hwcaps-prepend",
    "--inhibit-rpath",
    "--library-path",
    "--preload",
];

/// The base name of the program that a dynamic loader runs by its arguments: to the kernel only the loader runs.
fn loaded<'a>(executable: &str, args: &'a Texts) -> Option<&'a str> {
    let name = executable_name(executable);
    if !LOADERS.iter().any(|loader| name.starts_with(loader)) {
        return None;
    }
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        if !arg.starts_with("--") {
            return Some(base(arg));
        }
        if LOADER_OPTIONS.contains(&arg) {
            rest.next();
        }
    }
    None
}

/// Arguments in one buffer, which has at most three times the bytes of the record, whatever the user chooses.
pub(super) fn args<'a>(args: impl IntoIterator<Item = &'a [u8]>) -> Texts {
    let mut ended = String::new();
    for arg in args {
        ended.push_str(&String::from_utf8_lossy(arg));
        ended.push('\0');
    }
    Texts::of_ended(ended)
}

fn command_line(args: &Texts) -> SmolStr {
    args.join(" ").into()
}

/// Whether a variable is longer than the part that is read.
fn is_cut_variable(variable: &[u8]) -> bool {
    variable.len() + 1 >= VARIABLE_BYTES_MAX
}

fn lossy(bytes: &[u8]) -> SmolStr {
    String::from_utf8_lossy(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_the_names_people_type() {
        let typed = args([&b"nc"[..], b"-e"]);
        for (executable, filename, expected) in [
            ("/usr/bin/curl", "/usr/bin/curl", &["curl"][..]),
            ("/usr/bin/python3.11", "/usr/bin/aws", &["python3.11", "aws"]),
            ("/usr/bin/nc.traditional", "/bin/nc", &["nc.traditional", "nc"]),
            ("/usr/bin/gawk", "awk", &["gawk", "awk"]),
            ("/memfd:payload (deleted)", "/dev/fd/3", &["memfd:payload"]),
            ("/memfd:payload (deleted)", "/proc/self/fd/3", &["memfd:payload"]),
            ("/memfd:payload (deleted)", "/proc/77/fd/3", &["memfd:payload"]),
            ("/memfd:x/usr/bin/curl (deleted)", "/dev/fd/3", &["memfd:x/usr/bin/curl"]),
            ("/tmp/x (deleted)", "/tmp/x", &["x"]),
            ("/usr/bin/busybox", "/dev/fd/4/wget", &["busybox", "wget"]),
            ("/usr/bin/busybox", "/proc/self/exe", &["busybox", "nc"]),
            ("/usr/bin/busybox", "/proc/7/task/8/exe", &["busybox", "nc"]),
            ("/tmp/exe", "/proc/self/cwd/exe", &["exe"]),
        ] {
            let name = names(executable_name(executable), called_name(filename, &typed), None);
            assert_eq!(name.elements().to_vec(), Value::texts(expected).elements().to_vec(), "{filename}");
        }
    }

    #[test]
    fn a_mark_that_is_a_part_of_the_name_stays() {
        let deleted = Span { offset: 0, len: Span::DELETED };
        for (path, span, name) in [
            ("/tmp/nc (deleted)", Span::EMPTY, "nc (deleted)"),
            ("/tmp/nc (deleted)", deleted, "nc"),
            ("/tmp/nc (deleted) (deleted)", deleted, "nc (deleted)"),
        ] {
            assert_eq!(own_name(path, span), name);
        }
    }

    #[test]
    fn the_opened_file_is_known_among_the_names() {
        let image = |executable: &str, args: &[&str], comm: &str| {
            Image::of_procfs(executable, self::args(args.iter().map(|arg| arg.as_bytes())), "/", comm)
        };
        for (image, opened) in [
            (image("/usr/bin/bash", &["-bash"], "bash"), None),
            (image("/usr/bin/rtmarker", &["dpkg"], "dpkg"), Some("rtmarker")),
            (image("/usr/bin/dash", &["/bin/sh", "./dnf"], "dnf"), Some("dash")),
            (image("/memfd:dpkg (deleted)", &["dpkg"], "dpkg"), Some("")),
            (image("/tmp/x (deleted)", &["x"], "x"), None),
            (Image { file: None, ..image("/tmp/x (deleted)", &["x"], "x") }, Some("x (deleted)")),
            (Image::unknown("sshd".into()), Some("")),
        ] {
            assert_eq!(image.opened_name(), opened, "{:?}", image.name);
        }
    }

    #[test]
    fn a_loaded_program_is_named_beside_its_loader() {
        const LOADER: &str = "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
        for (executable, args, expected) in [
            (LOADER, &["ld.so", "/usr/bin/nc", "-e"][..], Some("nc")),
            (LOADER, &["ld.so", "--argv0", "x", "--inhibit-cache", "--preload", "y.so", "./nc"], Some("nc")),
            (LOADER, &["ld.so", "--help"], None),
            (LOADER, &["ld.so", "--argv0"], None),
            (LOADER, &[], None),
            ("/lib/ld-musl-x86_64.so.1", &["x", "curl"], Some("curl")),
            ("/usr/bin/ld", &["ld", "nc"], None),
        ] {
            let args = super::args(args.iter().map(|arg| arg.as_bytes()));
            assert_eq!(loaded(executable, &args), expected, "{args:?}");
        }
    }

    #[test]
    fn a_running_program_is_named_by_what_agrees() {
        for (executable, args, comm, expected) in [
            ("/usr/bin/bash", &["-bash"][..], "bash", &["bash"][..]),
            (
                "/usr/bin/python3.11",
                &["/usr/bin/python3", "/usr/bin/aws", "ssm"],
                "aws",
                &["python3.11", "aws"],
            ),
            ("/usr/bin/nc.traditional", &["nc", "-l"], "nc", &["nc.traditional", "nc"]),
            ("/usr/sbin/nginx", &["nginx: worker process"], "nginx", &["nginx"]),
            (
                "/usr/bin/python3.11",
                &["python3", "/opt/a-long-name-of-a-script.py"],
                "a-long-name-of-",
                &["python3.11", "a-long-name-of-a-script.py"],
            ),
            ("/usr/bin/evil", &["evil"], "kworker/0:1", &["evil"]),
        ] {
            let args = super::args(args.iter().map(|arg| arg.as_bytes()));
            let image = Image::of_procfs(executable, args, "/", comm);
            assert_eq!(
                image.name.elements().to_vec(),
                Value::texts(expected).elements().to_vec(),
                "{executable}"
            );
        }
    }
}
