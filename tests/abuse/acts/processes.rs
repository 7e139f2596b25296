//! Processes: many, fat, hidden, short and numbered.

use std::env;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::{
    FAT_BYTES, Order, become_attacker, enter_namespaces, in_child, in_waves, mapped_shell, stay, with,
};

/// Empty arguments that take as much as a fat one.
const EMPTY_COUNT: usize = 48 * 1024;
/// Variables of a large environment, and the bytes of each.
const VARIABLES: usize = 8;
const VARIABLE_BYTES: usize = 120 * 1024;
/// Names of a long path, and the bytes of each.
const LONG_NAMES: usize = 15;
const NAME_BYTES: usize = 255;
/// How many namespaces lie in each other: the kernel takes 32 of users.
const NESTS: u32 = 28;

fn fat() -> Vec<Vec<u8>> {
    vec![vec![b'x'; FAT_BYTES]]
}

fn control_characters() -> Vec<Vec<u8>> {
    vec![vec![1; FAT_BYTES]]
}

fn empty() -> Vec<Vec<u8>> {
    vec![Vec::new(); EMPTY_COUNT]
}

pub(super) fn sleeping_fat(order: &Order) -> io::Result<()> {
    sleeping(order, &fat())
}

pub(super) fn sleeping_empty(order: &Order) -> io::Result<()> {
    sleeping(order, &empty())
}

fn sleeping(order: &Order, arguments: &[Vec<u8>]) -> io::Result<()> {
    for _ in 0..order.count {
        let mut command = order.again("stay", 1);
        with(&mut command, arguments);
        command.spawn()?;
    }
    order.all_there()
}

pub(super) fn chain_fat(order: &Order) -> io::Result<()> {
    chain(order, "chain link fat", &fat())
}

pub(super) fn chain_empty(order: &Order) -> io::Result<()> {
    chain(order, "chain link empty", &empty())
}

pub(super) fn link_fat(order: &Order) -> io::Result<()> {
    link(order, "chain link fat", &fat())
}

pub(super) fn link_empty(order: &Order) -> io::Result<()> {
    link(order, "chain link empty", &empty())
}

/// The last link says through the pipe that it is there.
fn chain(order: &Order, act: &str, arguments: &[Vec<u8>]) -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    let mut first = order.again(act, order.count);
    with(&mut first, arguments);
    first.stdout(writer).spawn()?.wait()?;
    drop(first);
    reader.read_exact(&mut [0])?;
    order.all_there()
}

/// Starts the next link and ends.
fn link(order: &Order, act: &str, arguments: &[Vec<u8>]) -> io::Result<()> {
    if order.count == 0 {
        return here();
    }
    let mut next = order.again(act, order.count - 1);
    with(&mut next, arguments);
    next.stdout(Stdio::inherit()).spawn()?;
    Ok(())
}

/// Gives itself arguments of a gigabyte that take no memory, and sets off a rule below itself.
pub(super) fn hidden(order: &Order) -> io::Result<()> {
    become_attacker()?;
    show_arguments_of(1 << 30)?;
    for _ in 0..order.count {
        order.shell(&order.program).status()?;
    }
    // The alerts about it are made meanwhile.
    std::thread::sleep(Duration::from_secs(3));
    Ok(())
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

/// Programs of one process, each with fat arguments, and the last of which stays.
pub(super) fn execs(order: &Order) -> io::Result<()> {
    let mut first = order.again("execs link", order.count);
    let (mut reader, writer) = io::pipe()?;
    first.stdout(writer).spawn()?;
    drop(first);
    reader.read_exact(&mut [0])?;
    order.all_there()
}

pub(super) fn execs_link(order: &Order) -> io::Result<()> {
    if order.count == 0 {
        return here();
    }
    let mut next = order.again("execs link", order.count - 1);
    with(&mut next, &fat());
    Err(next.stdout(Stdio::inherit()).exec())
}

/// Says that it is there, and stays.
fn here() -> io::Result<()> {
    io::stdout().write_all(b"x\n")?;
    io::stdout().flush()?;
    stay()
}

pub(super) fn fat_alerts(order: &Order) -> io::Result<()> {
    let mut first = order.again("fat alerts link", 19);
    first.env("LAPWING_TEST_ABUSE_ALERTS", order.count.to_string());
    with(&mut first, &control_characters());
    first.current_dir(order.program.parent().unwrap_or(Path::new("/")));
    first.spawn()?.wait().map(drop)
}

/// The same, where the path of each program and folder is nearly as long as a path may be.
pub(super) fn long_alerts(order: &Order) -> io::Result<()> {
    let top = order.program.with_file_name("long");
    let mut folder = top.clone();
    folder.extend(std::iter::repeat_n("l".repeat(NAME_BYTES), LONG_NAMES));
    fs::create_dir_all(&folder)?;
    let program = folder.join("nc");
    fs::hard_link(&order.program, &program)?;
    fat_alerts(&Order { program, address: order.address.clone(), ..*order })
}

/// An ancestor with fat arguments; the last one sets off the rule.
pub(super) fn fat_alerts_link(order: &Order) -> io::Result<()> {
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

pub(super) fn programs(order: &Order) -> io::Result<()> {
    in_waves((0..order.count).map(|_| {
        let mut command = order.run(Path::new("/bin/true"), "none", 1);
        command.arg("x".repeat(1000));
        Ok(command)
    }))
}

/// Programs with a large environment, in which a variable that rules want comes last.
pub(super) fn environments(order: &Order) -> io::Result<()> {
    let value = "v".repeat(VARIABLE_BYTES);
    in_waves((0..order.count).map(|_| {
        let mut command = order.run(Path::new("/bin/true"), "none", 1);
        command.envs((0..VARIABLES).map(|number| (format!("A{number}"), &value)));
        command.env("LD_PRELOAD", "/nowhere.so").stderr(Stdio::null());
        Ok(command)
    }))
}

pub(super) fn numbers(order: &Order) -> io::Result<()> {
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

/// Namespaces of users and processes in each other, and in the innermost one what a rule alerts on.
pub(super) fn namespaces(order: &Order) -> io::Result<()> {
    become_attacker()?;
    for _ in 0..order.count {
        in_child(|| nest(order, NESTS))?;
    }
    Ok(())
}

fn nest(order: &Order, left: u32) -> io::Result<()> {
    if left == 0 {
        return mapped_shell(order, &order.program).status().map(drop);
    }
    enter_namespaces(libc::CLONE_NEWPID)?;
    in_child(|| nest(order, left - 1))
}
