//! Relatives: parents that go, numbers that come again, leaders of one's own.

use std::io::Read;
use std::os::fd::AsRawFd;

use serde_json::{Value, json};

use crate::act::{self, Strings, c};
use crate::agent::{agent, all, assert_fields, event, field, is, of, ready};

/// Has a process make another and end, and the other, adopted by then, run `/bin/true` with this argument. Returns the
/// number of the one that ended. Both are in a session of their own, which the first leads.
fn adopted(argument: &str) -> u32 {
    let (path, texts) = (c("/bin/true"), [c("true"), c(argument)]);
    let strings = Strings::new(&texts);
    let (mut end, begin) = std::io::pipe().unwrap();
    let pipe = begin.as_raw_fd();
    let (middle, _) = act::forked_as_leader(|| {
        // Before the child is there, which may find itself adopted already.
        // SAFETY: it takes nothing.
        let parent = unsafe { libc::getpid() };
        // SAFETY: what follows in the child are system calls alone.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: as before; the pipe is open until this process ends.
            while unsafe { libc::getppid() } == parent {
                // SAFETY: it takes a number.
                unsafe { libc::usleep(1000) };
            }
            // SAFETY: it closes no descriptor that is used elsewhere in this process.
            unsafe { libc::close(pipe) };
            return act::exec(&path, &strings);
        }
        // A moment, so that the other is there and waits.
        // SAFETY: it takes a number.
        unsafe { libc::usleep(20_000) };
        0
    });
    drop(begin);
    // Ends when the other end is closed everywhere.
    end.read_to_end(&mut Vec::new()).unwrap();
    middle
}

/// An attacker's process ends as soon as it has made another, which init adopts and which then runs a program, so that
/// it seems to come from nowhere. Seen: the parent is the one that made it, and its ancestors are reported.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_parent_that_is_gone() {
    ready();
    let argument = format!("adopted-{}", std::process::id());
    let middle = adopted(&argument);
    let found = event("the adopted process's program", |event| event["process"]["args"][1] == *argument);
    assert_fields(&found, json!({"process.parent.pid": middle}));
    let own = field(&of("fork", middle), "process.parent.entity_id").clone();
    let ancestry = field(&found, "process.Ext.ancestry").as_array().unwrap();
    assert_eq!(ancestry[1], own, "the process that made the parent");
    let of_parent = of("fork", middle);
    assert_eq!(
        field(&found, "process.entry_leader.entity_id"),
        field(&of_parent, "process.entry_leader.entity_id"),
        "it began where its parent began"
    );
}

/// An attacker lets the leader of his session end and goes on without it. Seen: the leader, as it was.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_leader_that_is_gone() {
    ready();
    let argument = format!("led-{}", std::process::id());
    let leader = adopted(&argument);
    let found = event("the led process's program", |event| event["process"]["args"][1] == *argument);
    assert_fields(
        &found,
        json!({
            "process.session_leader.pid": leader,
            "process.session_leader.executable": std::env::current_exe().unwrap(),
            "process.session_leader.same_as_process": false,
        }),
    );
}

/// An attacker who is root makes process after process with one and the same number, faster than the clock of processes
/// ticks, so that one is taken for the other. Seen: every start, every program with its own arguments, every end.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn one_number_again_and_again() {
    const ROUNDS: usize = 100;
    ready();
    let number = act::forked(|| 0).0;
    let path = c("/bin/true");
    let mut made = Vec::new();
    for round in 0..ROUNDS {
        let texts = [c("true"), c(format!("again-{round}"))];
        let strings = Strings::new(&texts);
        if with_number(number, || act::exec(&path, &strings)) {
            made.push(round);
        }
    }
    // Another process of this machine may have come upon the number; not for long.
    assert!(made.len() > ROUNDS / 2, "{} of {ROUNDS} could be made", made.len());
    // By its argument, for another test may have had its number.
    let last = format!("last-{number}");
    let texts = [c("true"), c(&*last)];
    let strings = Strings::new(&texts);
    let _ = act::forked(|| act::exec(&path, &strings));
    event("the last program", |event| event["process"]["args"][1] == *last);
    for round in &made {
        let argument = format!("again-{round}");
        let found = all(|event| is(event, "exec", number) && event["process"]["args"][1] == *argument);
        assert_eq!(found.len(), 1, "{argument}");
        assert_fields(&found[0], json!({"process.parent.pid": std::process::id()}));
    }
    let found = all(|event| event["process"]["pid"] == number);
    let actions: Vec<_> = found.iter().filter_map(|event| event["event"]["action"].as_str()).collect();
    let count = |action| actions.iter().filter(|found| **found == action).count();
    // The first process with the number ran no program.
    assert!(count("fork") > made.len() && count("end") > made.len(), "{actions:?}");
    let changes = found.iter().filter(|event| !is(event, "already_running", number)).collect::<Vec<&Value>>();
    let begun = changes.iter().position(|event| is(event, "fork", number)).unwrap();
    for lives in changes[begun..].chunks(3).skip(1).filter(|lives| lives.len() == 3) {
        let ids: Vec<_> = lives.iter().map(|event| field(event, "process.entity_id")).collect();
        assert!(ids[0] == ids[1] || lives[0]["event"]["action"] != "fork", "{ids:?}");
    }
}

/// How many numbers behind the agent's are tried: on a busy machine others take some before the agent's child is there.
const AROUND: u32 = 300;

/// An attacker hunts for the numbers of what the agent did itself: of the child by which it tested its hooks, and those
/// around. Seen: each program, whichever number it has.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_number_that_the_agent_had() {
    ready();
    let agent = agent().0.id();
    let path = c("/bin/true");
    let mut made = Vec::new();
    for number in agent + 1..=agent + AROUND {
        let texts = [c("true"), c(format!("hunted-{number}"))];
        let strings = Strings::new(&texts);
        if with_number(number, || act::exec(&path, &strings)) {
            made.push(number);
        }
    }
    assert!(made.len() > 20, "{} could be made", made.len());
    for number in made {
        event("the program", |event| {
            is(event, "exec", number) && event["process"]["args"][1] == format!("hunted-{number}")
        });
    }
}

/// Makes a process with this number and waits for its end; whether it could be made.
fn with_number(number: u32, child: impl FnOnce() -> i32) -> bool {
    let wanted = i32::try_from(number).unwrap();
    // match-proto:v5.5:include/uapi/linux/sched.h:struct clone_args
    let mut arguments = [0_u64; 10];
    arguments[4] = libc::SIGCHLD as u64;
    arguments[8] = (&raw const wanted) as u64;
    arguments[9] = 1;
    // SAFETY: without new memory this is a fork; the child does what `act::forked` lets it do.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments[..])) };
    if pid == 0 {
        let code = child();
        // SAFETY: it does not return.
        unsafe { libc::_exit(code) };
    }
    pid > 0 && act::wait(wanted) == 0
}
