//! A machine of the test's own: Debian's base system, or Ubuntu's where that is what runs here, booted with systemd
//! as its init by systemd-nspawn. It shares the kernel with this host and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What is in the guest beside the base system.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,procps,iproute2,ca-certificates,libpam-systemd,netcat-traditional";
/// How long booting may take, and ending.
const BOOT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// A guest that runs. Where it is dropped it is switched off, and what it wrote is deleted.
pub(crate) struct Guest {
    folder: PathBuf,
    /// A folder of the host's that the guest sees as `/package`.
    shared: PathBuf,
    nspawn: Child,
}

impl Guest {
    /// Boots one from a copy of the base system, which is made once.
    pub(crate) fn boot(shared: &Path) -> Self {
        let folder = place().join(format!("guest-{}", std::process::id()));
        must(Command::new("cp").args(["-a", "--reflink=auto"]).arg(base()).arg(&folder));
        let nspawn = start(&folder, shared);
        let mut guest = Self { folder, shared: shared.to_owned(), nspawn };
        guest.wait_for_boot();
        guest
    }

    /// Switches it off as its power button would, and on again.
    pub(crate) fn reboot(&mut self) {
        self.power_off();
        self.nspawn = start(&self.folder, &self.shared);
        self.wait_for_boot();
    }

    /// A command for the guest's shell.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let leader = self.leader().expect("the guest runs");
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &leader, "--all", "--root", "--wd=/", "--"]);
        // The working directory is taken before the guest is entered, where it is none.
        nsenter
            .args(["/usr/bin/env", "--chdir=/", "/bin/sh", "-c", script])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        nsenter
    }

    /// What a script prints; it must succeed.
    pub(crate) fn run(&self, script: &str) -> String {
        let output = self.shell(script).stdin(Stdio::null()).output().expect("nsenter");
        assert!(output.status.success(), "`{script}`: {}\n{}", output.status, self.journal(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a script until it succeeds, and returns what it printed then.
    pub(crate) fn until(&self, script: &str, deadline: Duration) -> String {
        let start = Instant::now();
        loop {
            let output = self.shell(script).stdin(Stdio::null()).output().expect("nsenter");
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).trim().to_owned();
            }
            assert!(start.elapsed() < deadline, "`{script}` for {deadline:?}\n{}", self.journal(&output));
            std::thread::sleep(POLL);
        }
    }

    /// What a command printed and what the service said, for a failing test.
    fn journal(&self, output: &Output) -> String {
        let journal = self.shell("journalctl --no-pager --unit lapwing --lines 100").output();
        let journal = journal.map(|journal| journal.stdout).unwrap_or_default();
        let said = [&output.stdout[..], &output.stderr, &journal].concat();
        String::from_utf8_lossy(&said).into_owned()
    }

    fn wait_for_boot(&mut self) {
        let start = Instant::now();
        let is_up = |guest: &Self| {
            guest.leader().is_some() && {
                let state = guest.shell("systemctl is-system-running").output().expect("nsenter").stdout;
                matches!(String::from_utf8_lossy(&state).trim(), "running" | "degraded")
            }
        };
        while !is_up(self) {
            let ended = self.nspawn.try_wait().expect("systemd-nspawn");
            assert!(ended.is_none() && start.elapsed() < BOOT, "the guest does not boot: {}", self.console());
            std::thread::sleep(POLL);
        }
    }

    fn power_off(&mut self) {
        if self.leader().is_some() {
            // It takes the connection down with it.
            let _ = self.shell("systemctl poweroff").output();
        }
        let start = Instant::now();
        while self.nspawn.try_wait().expect("systemd-nspawn").is_none() {
            if start.elapsed() > BOOT {
                // Its init dies with it, and everything in it with that.
                let _ = self.nspawn.kill();
            }
            std::thread::sleep(POLL);
        }
    }

    /// The process that is the guest's init.
    fn leader(&self) -> Option<String> {
        let id = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }

    fn console(&self) -> String {
        fs::read_to_string(console(&self.folder)).unwrap_or_default()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.power_off();
        // What stays behind only takes room, and the next build's `cargo clean` takes it.
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(console(&self.folder));
    }
}

/// Boots what lies in a folder. The kernel's BPF is let through, as it is on a real machine.
fn start(folder: &Path, shared: &Path) -> Child {
    let console = fs::File::create(console(folder)).expect("the console's file");
    let mut nspawn = Command::new("systemd-nspawn");
    nspawn.args(["--quiet", "--keep-unit", "--register=no", "--boot", "--private-network"]);
    nspawn.args([
        "--console=passive",
        "--machine=lapwing-test",
        "--capability=CAP_BPF,CAP_PERFMON,CAP_SYS_ADMIN",
    ]);
    nspawn.args(["--system-call-filter=bpf", "--system-call-filter=perf_event_open"]);
    nspawn.arg("--directory").arg(folder).arg(format!("--bind-ro={}:/package", shared.display()));
    nspawn.stdin(Stdio::null()).stderr(console.try_clone().expect("the console's file")).stdout(console);
    nspawn.spawn().expect("systemd-nspawn")
}

/// The base system, made on first use.
fn base() -> PathBuf {
    let release = fs::read_to_string("/etc/os-release").expect("/etc/os-release");
    let setting = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned()).unwrap_or_default()
    };
    // The same release as here, for the package is built against its libraries.
    let (id, codename) = (setting("ID"), setting("VERSION_CODENAME"));
    let base = place().join(format!("guest-{codename}"));
    if !base.exists() {
        let unfinished = base.with_extension("part");
        // What an interrupted run left behind must not be taken for the whole.
        let _ = fs::remove_dir_all(&unfinished);
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}")]);
        if id == "ubuntu" {
            debootstrap.arg("--components=main,universe");
        }
        must(debootstrap.arg(&codename).arg(&unfinished).args(mirror()));
        fs::rename(&unfinished, &base).expect("the base system's folder");
    }
    base
}

/// The mirror that this machine itself uses, where it says so in the usual place.
fn mirror() -> Option<String> {
    let lists = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list.d/ubuntu.sources"];
    let text = lists.iter().find_map(|list| fs::read_to_string(list).ok())?;
    let uri = text.lines().find_map(|line| line.strip_prefix("URIs:"))?;
    uri.split_whitespace().next().map(str::to_owned)
}

fn console(folder: &Path) -> PathBuf {
    folder.with_extension("console")
}

fn place() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn must(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
}
