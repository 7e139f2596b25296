//! A process whose program cannot be read: the kernel waits for a lock that the process holds.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lapwing_stage::skipped;
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;

use crate::act::Folder;
use crate::alerts::{agent, attack_once_as, is_of};

const PROGRAM: &str = include_str!("hold.py");
/// The attacker, and another user.
const NOBODY: u32 = 65_534;
const OTHER: u32 = 65_533;
/// How soon the agent is ready, and an alert there.
const SOON: Duration = Duration::from_secs(30);

/// The attacker's process, and the one that does not answer it.
struct Holder(Child);

impl Holder {
    /// `None` where users cannot mount file systems of their own here.
    fn start(folder: &Path) -> Option<Self> {
        let (program, mount, device) = (folder.join("hold.py"), folder.join("mount"), folder.join("fuse"));
        fs::write(&program, PROGRAM).unwrap();
        fs::create_dir(&mount).unwrap();
        std::os::unix::fs::chown(&mount, Some(NOBODY), Some(NOBODY)).unwrap();
        mknod(&device, SFlag::S_IFCHR, Mode::empty(), makedev(10, 229)).ok()?;
        // By its mode, for a mask would cut what is given above.
        fs::set_permissions(&device, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "unshare",
            "-Urm",
            "python3",
        ]);
        command.arg(program).arg(mount).arg(device).stdout(Stdio::piped()).process_group(0);
        let mut child = Self(command.spawn().ok()?);
        let mut line = String::new();
        BufReader::new(child.0.stdout.take()?).read_line(&mut line).ok()?;
        (line == "holds\n").then_some(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Without the one that does not answer, the kernel lets the other go.
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// An attacker's process runs when the agent starts, and keeps the lock of its own memory, so that who reads its
/// arguments waits without end. Seen: the agent starts, and another user's attack.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn while_the_agent_starts() {
    let folder = Folder::new();
    fs::set_permissions(&folder.0, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let Some(_holder) = Holder::start(&folder.0) else {
        return skipped("users cannot mount file systems of their own here");
    };
    let start = Instant::now();
    let agent = agent("");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let port = attack_once_as(OTHER);
    agent.wait_for_within("the attack", 0, SOON, |alert| is_of(alert, port)).unwrap();
}
