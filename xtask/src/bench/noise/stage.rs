//! Where the work is done: two hosts with addresses of the internet, and a folder with everything that scripts use.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapwing_stage::{AtEnd, Host, Hosts};
use tempfile::TempDir;

use super::workload::{Place, ROOT, Workload};
use crate::shell::output;

/// The hosts' addresses, out of the networks for documentation. Rules leave out loopback, so that work over it would prove
/// nothing.
pub(super) const ADDRESSES: [&str; 2] = ["203.0.113.10", "198.51.100.10"];
/// Where scripts find programs, before the folders in which their caller finds them.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The first port that is an act's own, and how many each has.
const PORT_FIRST: usize = 10_000;
const PORTS: usize = 20;
/// How long a script may take before it counts as one that hangs.
const HANG: &str = "900";
/// How often what is left on the hosts is killed.
const KILLS_MAX: usize = 20;

pub(super) struct Stage {
    hosts: Hosts,
    folder: TempDir,
    _at_end: AtEnd,
}

impl Stage {
    /// Makes hosts and files.
    pub(super) fn new(workload: &Workload) -> Result<Self> {
        let hosts = Hosts::new()?;
        let [here, there] = ADDRESSES;
        join(&hosts.near, here, there)?;
        join(&hosts.far, there, here)?;
        let folder = tempfile::Builder::new().prefix("lapwing-noise-").tempdir()?;
        let own = folder.path().display();
        let networks = networks(&hosts)?;
        // By number, for their names may be gone by then.
        let end = format!(
            "for p in /proc/[0-9]*; do case $(readlink $p/ns/net) in 'net:[{}]'|'net:[{}]') kill -KILL ${{p#/proc/}};; \
             esac; done; rm -rf '{own}'",
            networks[0], networks[1]
        );
        let at_end = AtEnd::new(&end)?;
        let stage = Self { hosts, folder, _at_end: at_end };
        // Other users than root read and write here, too.
        for (path, mode) in [("", 0o755), ("files", 0o755), ("home", 0o755), ("share", 0o1777)] {
            let path = stage.folder.path().join(path);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        for (name, text) in &workload.files {
            let path = stage.folder.path().join("files").join(name);
            fs::write(
                &path,
                text.replace("@FILES@", &stage.path("files")).replace("@SHARE@", &stage.path("share")),
            )?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
        Ok(stage)
    }

    /// The folder of an act or a server, `kind` being `acts` or `servers`.
    pub(super) fn own(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(kind).join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, Permissions::from_mode(0o1777))?;
        Ok(path)
    }

    /// The name of the folder, by which what this run does differs from what another does.
    pub(super) fn folder_name(&self) -> String {
        self.folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes a script into a folder.
    pub(super) fn write(&self, folder: &Path, name: &str, script: &str) -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, format!(". {}/lib.sh\n{script}", self.path("files")))?;
        Ok(path)
    }

    /// A shell with a script on a host. Its name, in the folder where the script lies, is what its ancestors' arguments show.
    /// What it prints goes to the file `log` beside it.
    pub(super) fn script(&self, place: Place, user: &str, script: &Path, number: usize) -> Result<Command> {
        let folder = script.parent().unwrap_or(script);
        let log = File::options().create(true).append(true).open(folder.join("log"))?;
        // Not by `ip netns exec`, which hides the control groups, and with them what container runtimes need.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.host(place).network().display()));
        command.args(["--", "setsid", "--wait", "timeout", "--kill-after=5", HANG]);
        if user != ROOT {
            command.args(["runuser", "-u", user, "--"]);
        }
        command.arg("bash").arg(script).current_dir(folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let others = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{PATH}:{others}")).env("HOME", self.path("home"));
        command.env("USER_HOME", std::env::var("HOME").unwrap_or_default());
        let [here, there] = ADDRESSES;
        for (name, value) in [("HERE", here), ("THERE", there), ("LC_ALL", "C.UTF-8"), ("TERM", "xterm")] {
            command.env(name, value);
        }
        command.env("FILES", self.path("files")).env("SHARE", self.path("share")).env("OWN", folder);
        command.env("HERE_NET", self.hosts.near.network()).env("THERE_NET", self.hosts.far.network());
        command.env("PORT", (PORT_FIRST + number * PORTS).to_string());
        Ok(command)
    }

    fn host(&self, place: Place) -> &Host {
        match place {
            Place::Here => &self.hosts.near,
            Place::There => &self.hosts.far,
        }
    }

    /// The hosts' network namespaces, by which it is known what ran on them.
    pub(super) fn networks(&self) -> Result<[u64; 2]> {
        networks(&self.hosts)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for _ in 0..KILLS_MAX {
            let pids = [&self.hosts.near, &self.hosts.far].map(|host| {
                output(Command::new("ip").args(["netns", "pids", &name(host)])).unwrap_or_default()
            });
            let pids: Vec<_> = pids.iter().flat_map(|pids| pids.split_whitespace()).collect();
            if pids.is_empty() {
                return;
            }
            // Some have ended by themselves meanwhile.
            let _ = output(Command::new("kill").arg("-KILL").args(&pids));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The inodes of the hosts' network namespaces.
fn networks(hosts: &Hosts) -> Result<[u64; 2]> {
    let inode = |host: &Host| fs::metadata(host.network()).map(|metadata| metadata.ino());
    Ok([inode(&hosts.near)?, inode(&hosts.far)?])
}

/// The name of a host's network namespace.
fn name(host: &Host) -> String {
    host.network().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Gives a host an address, and the way to the other's.
fn join(host: &Host, address: &str, other: &str) -> Result<()> {
    let commands = [
        vec!["address", "add", address, "dev", "eth0"],
        vec!["route", "add", other, "dev", "eth0", "src", address],
    ];
    for arguments in &commands {
        let status = host.command("ip").args(arguments).status().context("ip")?;
        ensure!(status.success(), "ip {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
