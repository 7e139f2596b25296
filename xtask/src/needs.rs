//! What tests use of the machine: a table, and the installing of what is missing.
//!
//! Root on Debian or Ubuntu gets it installed; other users get a message with what is missing and the command that installs it.
//! A test whose tool is missing all the same says so and is counted as skipped.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::{self, output, say, step};

/// Something that tests use.
struct Need<'a> {
    /// How it is seen to be there.
    probe: Probe<'a>,
    /// Debian's package that holds it.
    package: &'a str,
    /// What is tested with it.
    serves: &'a str,
}

enum Probe<'a> {
    Program(&'a str),
    File(&'a str),
    PythonModule(&'a str),
}

#[rustfmt::skip]
const NEEDS: &[Need<'static>] = &[
    Need { probe: Probe::Program("nc.traditional"), package: "netcat-traditional", serves: "reverse shells" },
    Need { probe: Probe::Program("ncat"), package: "ncat", serves: "reverse shells" },
    Need { probe: Probe::Program("telnet"), package: "telnet", serves: "reverse shells" },
    Need { probe: Probe::Program("perl"), package: "perl", serves: "reverse shells" },
    Need { probe: Probe::Program("python3"), package: "python3", serves: "reverse shells, servers from PyPI" },
    Need { probe: Probe::Program("ruby"), package: "ruby", serves: "reverse shells" },
    Need { probe: Probe::Program("lua5.4"), package: "lua5.4", serves: "reverse shells" },
    Need { probe: Probe::File("/usr/share/lua/5.4/socket.lua"), package: "lua-socket", serves: "reverse shells" },
    Need { probe: Probe::Program("php"), package: "php-cli", serves: "reverse shells" },
    Need { probe: Probe::Program("nc.openbsd"), package: "netcat-openbsd", serves: "reverse shells" },
    Need { probe: Probe::Program("busybox"), package: "busybox", serves: "reverse shells" },
    Need { probe: Probe::Program("socat"), package: "socat", serves: "reverse shells" },
    Need { probe: Probe::Program("rlwrap"), package: "rlwrap", serves: "reverse shells" },
    Need { probe: Probe::Program("zsh"), package: "zsh", serves: "reverse shells" },
    Need { probe: Probe::Program("ksh"), package: "ksh93u+m", serves: "reverse shells" },
    Need { probe: Probe::Program("mksh"), package: "mksh", serves: "reverse shells" },
    Need { probe: Probe::Program("guile"), package: "guile-3.0", serves: "reverse shells" },
    Need { probe: Probe::Program("tclsh"), package: "tcl", serves: "reverse shells" },
    Need { probe: Probe::Program("expect"), package: "expect", serves: "reverse shells" },
    Need { probe: Probe::Program("sudo"), package: "sudo", serves: "reverse shells" },
    Need { probe: Probe::Program("gdb"), package: "gdb", serves: "reverse shells" },
    Need { probe: Probe::Program("gcc"), package: "gcc", serves: "reverse shells" },
    Need { probe: Probe::File("/usr/include/stdio.h"), package: "libc6-dev", serves: "reverse shells" },
    Need { probe: Probe::Program("node"), package: "nodejs", serves: "reverse shells" },
    Need { probe: Probe::Program("javac"), package: "default-jdk-headless", serves: "reverse shells" },
    Need { probe: Probe::Program("go"), package: "golang-go", serves: "reverse shells" },
    Need { probe: Probe::Program("mawk"), package: "mawk", serves: "reverse shells" },
    Need { probe: Probe::Program("dig"), package: "bind9-dnsutils", serves: "datagrams of tools" },
    Need { probe: Probe::Program("gawk"), package: "gawk", serves: "reverse shells" },
    Need { probe: Probe::Program("openssl"), package: "openssl", serves: "reverse shells, servers with TLS" },
    Need { probe: Probe::Program("sshd"), package: "openssh-server", serves: "what looks like reverse shells" },
    Need { probe: Probe::Program("ssh"), package: "openssh-client", serves: "what looks like reverse shells" },
    Need { probe: Probe::Program("systemd-socket-activate"), package: "systemd", serves: "what looks like reverse shells" },
    Need { probe: Probe::Program("stunnel"), package: "stunnel4", serves: "what looks like reverse shells" },
    Need { probe: Probe::Program("tmux"), package: "tmux", serves: "what looks like reverse shells" },
    Need { probe: Probe::Program("screen"), package: "screen", serves: "what looks like reverse shells" },
    Need { probe: Probe::Program("sqlite3"), package: "sqlite3", serves: "what looks like reverse shells" },
    Need { probe: Probe::Program("vim"), package: "vim", serves: "what looks like reverse shells" },
    Need { probe: Probe::Program("git"), package: "git", serves: "what looks like reverse shells" },
    Need { probe: Probe::Program("curl"), package: "curl", serves: "requests of instance metadata" },
    Need { probe: Probe::Program("wget"), package: "wget", serves: "requests of instance metadata" },
    Need { probe: Probe::Program("ip"), package: "iproute2", serves: "hosts in network namespaces" },
    Need { probe: Probe::PythonModule("ensurepip"), package: "python3-venv", serves: "servers from PyPI" },
    Need { probe: Probe::Program("nginx"), package: "nginx-light", serves: "servers with TLS, limits and credentials" },
    Need { probe: Probe::Program("debootstrap"), package: "debootstrap", serves: "the installed service" },
    Need { probe: Probe::Program("systemd-nspawn"), package: "systemd-container", serves: "the installed service" },
];

/// Where Debian's packages ask whether they may start their services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing, or says what is.
///
/// # Errors
/// Never where something stays missing, for the tests that need it say so; only where the machine itself fails.
pub(crate) fn install() -> Result<()> {
    install_of(NEEDS)
}

/// The same for one program that only some tests use.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_program(name: &'static str, package: &'static str, serves: &'static str) -> Result<()> {
    install_of(&[Need { probe: Probe::Program(name), package, serves }])
}

/// The same for programs, each with its package, that a benchmark of benign work uses.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_programs(programs: &[(&str, &str)]) -> Result<()> {
    let need = |&(name, package)| Need { probe: Probe::of(name), package, serves: "benign work" };
    install_of(&programs.iter().map(need).collect::<Vec<_>>())
}

/// Whether a program, or a file by its path, is there.
pub(crate) fn is_there(name: &str) -> bool {
    Probe::of(name).is_there()
}

/// The same for a compiler and a header of the C library that it compiles for, each with its package.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_compiler([compiler, header]: [(&'static str, &'static str); 2]) -> Result<()> {
    let serves = "building for another processor";
    install_of(&[
        Need { probe: Probe::Program(compiler.0), package: compiler.1, serves },
        Need { probe: Probe::File(header.0), package: header.1, serves },
    ])
}

fn install_of(needs: &[Need<'_>]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|need| !need.probe.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> =
        missing.iter().map(|need| need.package).collect::<BTreeSet<_>>().into_iter().collect();
    let command = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !shell::exists("apt-get") || !shell::is_root() {
        let serves: Vec<_> =
            missing.iter().map(|need| format!("{} ({})", need.package, need.serves)).collect();
        say(&format!("missing for tests: {}", serves.join(", ")));
        say(&format!("where there is apt, `sudo {command}` installs it"));
        return Ok(());
    }
    let quiet = QuietServices::begin()?;
    if let Err(error) = apt_install(&packages) {
        say(&format!("not everything that tests use could be installed by `{command}`: {error:#}"));
    }
    drop(quiet);
    Ok(())
}

impl<'a> Probe<'a> {
    /// A file where it is named by its path, and else a program.
    fn of(name: &'a str) -> Self {
        if name.starts_with('/') { Self::File(name) } else { Self::Program(name) }
    }

    fn is_there(&self) -> bool {
        match self {
            // Not every shell has the folders of system programs in its path.
            Self::Program(name) => shell::exists(name) || Path::new("/usr/sbin").join(name).is_file(),
            Self::File(path) => Path::new(path).is_file(),
            Self::PythonModule(name) => {
                output(Command::new("python3").args(["-c", &format!("import {name}")])).is_ok()
            }
        }
    }
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-q", "install", "-y", "--no-install-recommends"]).args(packages);
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    let what = format!("installing what tests use: {}", packages.join(" "));
    step(&what, &mut install()).or_else(|_| {
        // The lists of a fresh machine are empty or old.
        step("updating the list of packages", Command::new("apt-get").args(["-qq", "update"]))?;
        step(&what, &mut install())
    })
}

/// While this lives, packages that are installed do not start their services: what tests use, they start themselves.
struct QuietServices {
    is_ours: bool,
}

impl QuietServices {
    fn begin() -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        match file {
            Ok(mut file) => file.write_all(b"#!/bin/sh\nexit 101\n").context(POLICY)?,
            // The machine has a policy of its own.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Ok(Self { is_ours: false });
            }
            Err(error) => return Err(error).context(POLICY),
        }
        Ok(Self { is_ours: true })
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if self.is_ours {
            // It was there a moment ago; who removed it wanted it gone too.
            let _ = fs::remove_file(POLICY);
        }
    }
}
