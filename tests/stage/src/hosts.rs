//! Two hosts that reach each other and no other host: network namespaces joined by a cable.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

use crate::at_end::AtEnd;

/// The address of the instance metadata service.
pub const IMDS: &str = "169.254.169.254";
/// The same by IPv6.
pub const IMDS_IPV6: &str = "fd00:ec2::254";

/// The host that is attacked, and the one far away. They exist until this is dropped.
#[derive(Debug)]
pub struct Hosts {
    /// The host that is attacked: 10.66.0.1 and fd66::1 where it is not on the internet.
    pub near: Host,
    /// The host far away: 10.66.0.2 and fd66::2; it is the instance metadata service too.
    pub far: Host,
}

/// A host: a network namespace.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: &'static str,
    address_ipv6: &'static str,
    _at_end: AtEnd,
}

impl Hosts {
    /// Makes the hosts. It takes root and iproute2.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn new() -> Result<Self> {
        Self::with(["10.66.0.1", "fd66::1"], ["10.66.0.2", "fd66::2"])
    }

    /// The same with addresses as they are on the internet, each host on a network of its own: 203.0.113.10 and
    /// 2001:db8:1::10 here, 198.51.100.20 and 2001:db8:2::20 far away.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn on_the_internet() -> Result<Self> {
        let hosts = Self::with(["203.0.113.10", "2001:db8:1::10"], ["198.51.100.20", "2001:db8:2::20"])?;
        for host in [&hosts.near, &hosts.far] {
            host.ip(&["route", "add", "default", "dev", "eth0"])?;
            host.ip(&["-6", "route", "add", "default", "dev", "eth0"])?;
        }
        Ok(hosts)
    }

    /// Makes hosts with these addresses, one of each family.
    fn with(near: [&'static str; 2], far: [&'static str; 2]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let near = Host::new(format!("lapwing-near-{id}"), near)?;
        let far = Host::new(format!("lapwing-far-{id}"), far)?;
        let cable = [
            "link", "add", "eth0", "netns", &near.name, "type", "veth", "peer", "name", "eth0", "netns",
            &far.name,
        ];
        ip(&cable)?;
        for host in [&near, &far] {
            let (address, address_ipv6) =
                (format!("{}/24", host.address), format!("{}/64", host.address_ipv6));
            host.ip(&["address", "add", &address, "dev", "eth0"])?;
            // No duplicate address detection: the address is to be usable at once.
            host.ip(&["address", "add", &address_ipv6, "dev", "eth0", "nodad"])?;
            host.ip(&["link", "set", "lo", "up"])?;
            host.ip(&["link", "set", "eth0", "up"])?;
        }
        for address in ["169.254.169.254/32", "fd00:ec2::254/128"] {
            let family: &[&str] = if address.contains(':') { &["-6"] } else { &[] };
            far.ip(&[family, &["address", "add", address, "dev", "eth0"]].concat())?;
            near.ip(&[family, &["route", "add", address, "dev", "eth0"]].concat())?;
        }
        Ok(Self { near, far })
    }
}

impl Host {
    fn new(name: String, [address, address_ipv6]: [&'static str; 2]) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let at_end = AtEnd::new(&format!("ip netns delete {name}"))?;
        Ok(Self { name, address, address_ipv6, _at_end: at_end })
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn address(&self) -> &'static str {
        self.address
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn address_ipv6(&self) -> &'static str {
        self.address_ipv6
    }

    /// The file by which its network namespace is entered.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-netns", &self.name], arguments].concat())
    }

    /// A program that will run on this host, in quiet.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a script of a shell that stays until the script ends, as the shell of a person or a service would.
    ///
    /// # Errors
    /// The shell cannot be started.
    pub fn shell(&self, shell: &str, script: &str) -> Result<Child> {
        // The shell would put the last command in its own place without anything after it.
        let script = format!("{script}\nexit $?");
        self.command(shell)
            .args(["-c", &script])
            .spawn()
            .with_context(|| format!("{shell} cannot be started"))
    }

    /// Whether a process on this host listens on a TCP port.
    ///
    /// # Errors
    /// The list of sockets cannot be read.
    pub fn listens(&self, port: u16) -> Result<bool> {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name, "cat", "/proc/net/tcp", "/proc/net/tcp6"])
            .output()
            .context("the list of sockets cannot be read")?;
        let suffix = format!(":{port:04X}");
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|local| local.ends_with(&suffix)) && words.nth(1) == Some("0A")
        }))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may be gone with its cable already.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output =
        Command::new("ip").args(arguments).output().context("`ip` cannot be run; install iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// An address with a port, as a URL has it.
#[must_use]
pub fn socket(address: &str, port: u16) -> String {
    match address.parse() {
        Ok(IpAddr::V6(_)) => format!("[{address}]:{port}"),
        _ => format!("{address}:{port}"),
    }
}
