//! The acts: a copy of this very binary, ordered by its environment, does one of them before the harness of the tests
//! begins. It starts as root, for control groups and mapped ids; everything that attacks runs as `nobody`.

use std::env;
use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::stage::ATTACKER;

/// The variable that holds `ACT;COUNT;ADDRESS PORT`.
pub(crate) const ORDER: &str = "LAPWING_TEST_ABUSE_ACT";
/// The variable that holds this program's path.
pub(crate) const PROGRAM: &str = "LAPWING_TEST_ABUSE_PROGRAM";

/// Bytes of a fat argument: a little less than a record holds.
const FAT_BYTES: usize = 47 * 1024;
/// Empty arguments that take as much.
const EMPTY_COUNT: usize = 48 * 1024;
/// How long processes sleep that are there to be kept.
const SLEEP: Duration = Duration::from_secs(20);
/// Threads that connect.
const THREADS: u32 = 100;
/// Programs that run side by side.
const WAVE: usize = 32;

/// What an act knows.
struct Order {
    count: u32,
    address: String,
    port: u16,
    program: PathBuf,
}

type Act = fn(&Order) -> io::Result<()>;

const ACTS: &[(&str, Act)] = &[
    ("connect", |order| connect(order).map(drop)),
    ("sleep", |_| sleep()),
    ("sleeping fat", |order| sleeping(order, &fat())),
    ("sleeping empty", |order| sleeping(order, &empty())),
    ("chain fat", |order| chain(order, &fat())),
    ("chain empty", |order| chain(order, &empty())),
    ("chain link fat", |order| link(order, &fat())),
    ("chain link empty", |order| link(order, &empty())),
    ("hidden", hidden),
    ("fat alerts", fat_alerts),
    ("fat alerts link", fat_alerts_link),
    ("terms", terms),
    ("half sequences", half_sequences),
    ("programs", programs),
    ("connections", connections),
    ("decoys", |order| decoys(order, |_| None, |_| Ok(()))),
    ("decoys of programs", decoys_of_programs),
    ("decoys of groups", decoys_of_groups),
    ("decoys of ids", decoys_of_ids),
    ("paths", paths),
    ("numbers", numbers),
    ("groups", groups),
];

/// Run by the loader before `main`, as every constructor is.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = act_where_ordered;

extern "C" fn act_where_ordered() {
    let Ok(order) = env::var(ORDER) else { return };
    let code = match act(&order) {
        Ok(()) => 0,
        Err(error) => {
            // Nowhere is left to report to when standard error is closed.
            let _ = writeln!(io::stderr(), "{order}: {error}");
            1
        }
    };
    // SAFETY: it does not return; there is nothing yet that would have to be run at an exit.
    unsafe { libc::_exit(code) };
}

fn act(order: &str) -> io::Result<()> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut parts = order.split(';');
    let name = parts.next().ok_or_else(wrong)?;
    let count = parts.next().and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
    let (address, port) = parts.next().and_then(|to| to.split_once(' ')).ok_or_else(wrong)?;
    let order = Order {
        count,
        address: address.to_owned(),
        port: port.parse().map_err(|_| wrong())?,
        program: env::var_os(PROGRAM).map(PathBuf::from).unwrap_or_default(),
    };
    let (_, act) = ACTS.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
    act(&order)
}

impl Order {
    /// This program again, as the attacker, with an order of its own.
    fn again(&self, act: &str, count: u32) -> Command {
        self.run(&self.program, act, count)
    }

    /// The same by another path of it.
    fn run(&self, program: &Path, act: &str, count: u32) -> Command {
        let mut command = Command::new(program);
        command
            .env(ORDER, format!("{act};{count};{} {}", self.address, self.port))
            .env(PROGRAM, &self.program);
        command.uid(ATTACKER).gid(ATTACKER).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A shell of the attacker's below which this program connects, which a packaged rule alerts on.
    fn shell(&self, program: &Path) -> Command {
        let script = format!("{} -e /bin/true {} {}; exit $?", program.display(), self.address, self.port);
        let mut shell = self.run(Path::new("/bin/sh"), "connect", 1);
        shell.args(["-c", &script]);
        shell
    }
}

fn connect(order: &Order) -> io::Result<TcpStream> {
    let address: SocketAddrV4 =
        format!("{}:{}", order.address, order.port).parse().map_err(io::Error::other)?;
    match TcpStream::connect_timeout(&address.into(), Duration::from_secs(2)) {
        // No server is there: the attempt was made.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
        other => other,
    }
    .or_else(|error| {
        if error.kind() == io::ErrorKind::ConnectionRefused { std::process::exit(0) } else { Err(error) }
    })
}

fn sleep() -> io::Result<()> {
    std::thread::sleep(SLEEP);
    Ok(())
}

fn fat() -> Vec<Vec<u8>> {
    vec![vec![b'x'; FAT_BYTES]]
}

fn control_characters() -> Vec<Vec<u8>> {
    vec![vec![1; FAT_BYTES]]
}

fn empty() -> Vec<Vec<u8>> {
    vec![Vec::new(); EMPTY_COUNT]
}

fn with(command: &mut Command, arguments: &[Vec<u8>]) {
    command.args(arguments.iter().map(|argument| std::ffi::OsStr::from_bytes(argument)));
}

/// Waits for all of them.
fn wait(children: Vec<Child>) -> io::Result<()> {
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

fn sleeping(order: &Order, arguments: &[Vec<u8>]) -> io::Result<()> {
    let mut children = Vec::new();
    for _ in 0..order.count {
        let mut command = order.again("sleep", 1);
        with(&mut command, arguments);
        children.push(command.spawn()?);
    }
    wait(children)
}

fn chain(order: &Order, arguments: &[Vec<u8>]) -> io::Result<()> {
    let act = if arguments.len() == 1 { "chain link fat" } else { "chain link empty" };
    let mut first = order.again(act, order.count);
    with(&mut first, arguments);
    first.spawn()?.wait()?;
    sleep()
}

/// Starts the next link and ends.
fn link(order: &Order, arguments: &[Vec<u8>]) -> io::Result<()> {
    if order.count == 0 {
        return sleep();
    }
    let act = if arguments.len() == 1 { "chain link fat" } else { "chain link empty" };
    let mut next = order.again(act, order.count - 1);
    with(&mut next, arguments);
    next.spawn()?;
    Ok(())
}

/// Gives itself arguments of a gigabyte that take no memory, and sets off a rule below itself.
fn hidden(order: &Order) -> io::Result<()> {
    become_attacker()?;
    show_arguments_of(1 << 30)?;
    for _ in 0..order.count {
        order.shell(&order.program).status()?;
    }
    sleep()
}

fn become_attacker() -> io::Result<()> {
    // SAFETY: neither has preconditions.
    let failed = unsafe { libc::setgid(ATTACKER) != 0 || libc::setuid(ATTACKER) != 0 };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// As the kernel takes it: match-proto:v3.18:include/uapi/linux/prctl.h:struct prctl_mm_map
#[repr(C)]
#[derive(Default)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

fn show_arguments_of(bytes: usize) -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let numbers: Vec<u64> = rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
    // The fields behind the name, which is the second, begin with the third.
    let field = |number: usize| numbers.get(number - 3).copied().unwrap_or(0);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a mapping of its own, which is not used otherwise.
    let place =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let map = MemoryMap {
        start_code: field(26),
        end_code: field(27),
        start_stack: field(28),
        start_data: field(45),
        end_data: field(46),
        start_brk: field(47),
        // SAFETY: it changes nothing.
        brk: unsafe { libc::sbrk(0) } as u64,
        arg_start: place as u64,
        arg_end: place as u64 + bytes as u64,
        env_start: field(50),
        env_end: field(51),
        exe_fd: u32::MAX,
        ..MemoryMap::default()
    };
    // SAFETY: the structure is as long as is said.
    let failed = unsafe {
        *place.cast::<u8>() = b'x';
        libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn fat_alerts(order: &Order) -> io::Result<()> {
    let mut first = order.again("fat alerts link", 19);
    first.env("LAPWING_TEST_ABUSE_ALERTS", order.count.to_string());
    with(&mut first, &control_characters());
    first.spawn()?.wait().map(drop)
}

/// An ancestor with fat arguments; the last one sets off the rule.
fn fat_alerts_link(order: &Order) -> io::Result<()> {
    if order.count > 0 {
        let mut next = order.again("fat alerts link", order.count - 1);
        with(&mut next, &control_characters());
        return next.spawn()?.wait().map(drop);
    }
    let alerts = env::var("LAPWING_TEST_ABUSE_ALERTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1);
    for _ in 0..alerts {
        order.shell(&order.program).status()?;
    }
    Ok(())
}

fn terms(order: &Order) -> io::Result<()> {
    let program = beside(order, "term")?;
    for number in 0..order.count {
        let mut command = order.run(&program, "none", 1);
        command.env_remove(ORDER).arg("--list").arg(format!("{number}{}", "x".repeat(FAT_BYTES)));
        command.stderr(Stdio::null()).status()?;
    }
    Ok(())
}

/// A shell that runs what could connect, and does not.
fn half_sequences(order: &Order) -> io::Result<()> {
    for _ in 0..order.count {
        let mut command = order.again("none", 1);
        command.env_remove(ORDER).arg("--list");
        with(&mut command, &fat());
        command.stderr(Stdio::null()).status()?;
    }
    Ok(())
}

fn programs(order: &Order) -> io::Result<()> {
    let mut children = Vec::new();
    for _ in 0..order.count {
        children.push(order.run(Path::new("/bin/true"), "none", 1).arg("x".repeat(1000)).spawn()?);
        if children.len() == WAVE {
            wait(std::mem::take(&mut children))?;
        }
    }
    wait(children)
}

fn connections(order: &Order) -> io::Result<()> {
    become_attacker()?;
    let address: SocketAddrV4 =
        format!("{}:{}", order.address, order.port).parse().map_err(io::Error::other)?;
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(order.count) {
            scope.spawn(|| {
                for _ in 0..order.count / THREADS {
                    let _ = TcpStream::connect_timeout(&address.into(), Duration::from_millis(200));
                }
            });
        }
    });
    Ok(())
}

/// Sets off one rule again and again, by the program that `of` names, in what `place` puts it.
fn decoys(
    order: &Order,
    of: impl Fn(u32) -> Option<PathBuf>,
    place: impl Fn(u32) -> io::Result<()>,
) -> io::Result<()> {
    let mut children = Vec::new();
    for number in 0..order.count {
        place(number)?;
        let program = of(number).unwrap_or_else(|| order.program.clone());
        children.push(order.shell(&program).spawn()?);
        if children.len() == WAVE {
            wait(std::mem::take(&mut children))?;
        }
    }
    wait(children)
}

fn decoys_of_programs(order: &Order) -> io::Result<()> {
    let folder = order.program.parent().map(Path::to_owned).unwrap_or_default();
    let path = |number: u32| {
        let folder = folder.join(number.to_string());
        fs::create_dir(&folder).ok()?;
        let path = folder.join("nc");
        fs::hard_link(&order.program, &path).ok()?;
        Some(path)
    };
    decoys(order, path, |_| Ok(()))
}

fn decoys_of_groups(order: &Order) -> io::Result<()> {
    let Some(root) = groups_root() else { return Ok(()) };
    let name = |number: u32| root.join(format!("lapwing-abuse-{}-{number}", std::process::id()));
    let place = |number: u32| {
        fs::create_dir(name(number))?;
        fs::write(name(number).join("cgroup.procs"), std::process::id().to_string())
    };
    let done = decoys(order, |_| None, place);
    fs::write(root.join("cgroup.procs"), std::process::id().to_string())?;
    for number in 0..order.count {
        let _ = fs::remove_dir(name(number));
    }
    done
}

/// Where control groups are made: the hierarchy of `pids` with version 1, else the unified one.
fn groups_root() -> Option<PathBuf> {
    ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .into_iter()
        .map(PathBuf::from)
        .find(|root| root.join("cgroup.procs").exists())
}

fn decoys_of_ids(order: &Order) -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    // SAFETY: there is one thread here, and the child does not return.
    match unsafe { libc::fork() } {
        0 => {
            let done = become_attacker().and_then(|()| in_user_namespace(order, reader));
            // SAFETY: it does not return.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => {
            drop(reader);
            // The namespace must be there before its ids can be mapped.
            std::thread::sleep(Duration::from_secs(1));
            let map = format!("0 {ATTACKER} 1\n1 200000 {}\n", order.count.max(1));
            fs::write(format!("/proc/{child}/uid_map"), &map)?;
            fs::write(format!("/proc/{child}/gid_map"), &map)?;
            writer.write_all(b"x")?;
            // SAFETY: a child of this process.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Ok(())
        }
    }
}

fn in_user_namespace(order: &Order, mut mapped: io::PipeReader) -> io::Result<()> {
    // SAFETY: it has no preconditions, and there is one thread here.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return Err(io::Error::last_os_error());
    }
    io::Read::read_exact(&mut mapped, &mut [0])?;
    let mut children = Vec::new();
    for id in 1..=order.count {
        children.push(order.shell(&order.program).uid(id).gid(id).spawn()?);
        if children.len() == WAVE {
            wait(std::mem::take(&mut children))?;
        }
    }
    wait(children)
}

/// Programs below folders of long names, and of many.
fn paths(order: &Order) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::chown(folder.path(), Some(ATTACKER), Some(ATTACKER))?;
    for number in 0..order.count {
        let (name, depth) =
            if number % 2 == 0 { ("d".to_owned(), 70 + number) } else { ("x".repeat(250), 14) };
        let mut path = folder.path().join(number.to_string());
        (0..depth).for_each(|_| path.push(&name));
        if fs::create_dir_all(&path).is_ok() && fs::hard_link(&order.program, path.join("nc")).is_ok() {
            order.shell(&path.join("nc")).status()?;
        }
    }
    Ok(())
}

fn numbers(order: &Order) -> io::Result<()> {
    become_attacker()?;
    for _ in 0..order.count {
        // SAFETY: the child does nothing but leave, and is waited for.
        unsafe {
            match libc::fork() {
                0 => libc::_exit(0),
                child => libc::waitpid(child, std::ptr::null_mut(), 0),
            };
        }
    }
    Ok(())
}

/// Control groups that come and go, each with a program in it.
fn groups(order: &Order) -> io::Result<()> {
    let Some(root) = groups_root() else { return Ok(()) };
    let own = root.join(format!("lapwing-abuse-{}", std::process::id()));
    for number in 0..order.count {
        let group = own.with_extension(number.to_string());
        fs::create_dir(&group)?;
        let mut program = order.run(Path::new("/bin/true"), "none", 1);
        let procs = CString::new(group.join("cgroup.procs").as_os_str().as_bytes())?;
        // SAFETY: only system calls are made between fork and exec.
        unsafe {
            program.pre_exec(move || {
                let file = libc::open(procs.as_ptr(), libc::O_WRONLY);
                libc::write(file, c"0".as_ptr().cast(), 1);
                libc::close(file);
                Ok(())
            })
        };
        program.status()?;
        let _ = fs::remove_dir(&group);
    }
    Ok(())
}

/// A hard link to this program beside it.
fn beside(order: &Order, name: &str) -> io::Result<PathBuf> {
    let path = order.program.with_file_name(name);
    fs::hard_link(&order.program, &path)?;
    Ok(path)
}
