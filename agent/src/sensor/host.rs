//! The host and agent fields of every event.

use std::ffi::OsStr;
use std::net::IpAddr;

use lapwing_engine::{Fields, Value, field};
use nix::sys::utsname::{UtsName, uname};
use smol_str::SmolStr;

use crate::bounded::{self, HOST_FILE_BYTES_MAX};

/// The host's own id, by which rules and responders distinguish hosts.
const MACHINE_ID: &str = "/etc/machine-id";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This host.
pub(super) struct Host {
    /// Unique for each boot.
    pub(super) boot_id: SmolStr,
    /// `host.*` and `agent.*`.
    pub(super) fields: Fields,
}

impl Host {
    /// Reads the host's fields.
    pub(super) fn new() -> Self {
        // Every kernel reports its name.
        let system = uname().ok();
        let part = |of: fn(&UtsName) -> &OsStr| {
            system.as_ref().map(|name| SmolStr::from(of(name).to_string_lossy()))
        };
        let release = text_of("/etc/os-release").or_else(|| text_of("/usr/lib/os-release"));
        let release = release.unwrap_or_default();
        let boot_id = text(BOOT_ID).unwrap_or_default();
        let name = part(UtsName::nodename).unwrap_or_default();
        // Without a machine id, as in some containers, the host's name is used.
        let id = text(MACHINE_ID).filter(|id| !id.is_empty()).unwrap_or_else(|| name.clone());
        let mut fields = Fields::new();
        fields.set(field!("agent.id"), id.clone());
        fields.set(field!("agent.name"), name.clone());
        fields.set(field!("agent.type"), "lapwing");
        fields.set(field!("agent.version"), env!("CARGO_PKG_VERSION"));
        fields.set_some(field!("host.architecture"), part(UtsName::machine));
        fields.set(field!("host.boot.id"), boot_id.clone());
        fields.set(field!("host.hostname"), name.clone());
        fields.set(field!("host.id"), id);
        fields.set(field!("host.ip"), Value::List(addresses().into_iter().map(Value::Ip).collect()));
        fields.set(field!("host.name"), name);
        fields.set_some(field!("host.os.full"), setting(&release, "PRETTY_NAME"));
        fields.set_some(field!("host.os.family"), family(&release));
        fields.set_some(field!("host.os.kernel"), part(UtsName::release));
        fields.set_some(field!("host.os.name"), setting(&release, "NAME"));
        fields.set_some(field!("host.os.platform"), setting(&release, "ID"));
        fields.set(field!("host.os.type"), "linux");
        fields.set_some(field!("host.os.version"), setting(&release, "VERSION_ID"));
        Self { boot_id, fields }
    }
}

fn text_of(path: &str) -> Option<String> {
    bounded::read_text(path, HOST_FILE_BYTES_MAX).ok()
}

fn text(path: &str) -> Option<SmolStr> {
    text_of(path).map(|text| text.trim().into())
}

/// A setting of `os-release`, without its quotes.
fn setting(release: &str, name: &str) -> Option<SmolStr> {
    let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(line.trim_matches(['"', '\'']).into())
}

/// The distribution's family, as Elastic names it.
fn family(release: &str) -> Option<SmolStr> {
    let like = setting(release, "ID_LIKE").unwrap_or_default();
    let id = setting(release, "ID")?;
    let is = |name: &str| id == name || like.split(' ').any(|like| like == name);
    let families =
        [("debian", "debian"), ("rhel", "redhat"), ("fedora", "redhat"), ("suse", "suse"), ("arch", "arch")];
    let family = families.into_iter().find(|(name, _)| is(name)).map(|(_, family)| family.into());
    family.or(Some(id))
}

/// The addresses of the interfaces, without loopback.
fn addresses() -> Vec<IpAddr> {
    let v4 = text_of("/proc/net/fib_trie").unwrap_or_default();
    let mut found: Vec<IpAddr> = local_v4(&v4);
    let v6 = text_of("/proc/net/if_inet6").unwrap_or_default();
    found.extend(v6.lines().filter_map(|line| {
        let bits = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
        Some(IpAddr::from(bits.to_be_bytes()))
    }));
    found.retain(|address| !address.is_loopback());
    found.sort_unstable();
    found.dedup();
    found
}

/// The addresses that the routing table calls local: each is one line above the words for it.
fn local_v4(trie: &str) -> Vec<IpAddr> {
    let lines: Vec<_> = trie.lines().collect();
    let local = lines.windows(2).filter(|pair| pair[1].contains("/32 host LOCAL"));
    local.filter_map(|pair| pair[0].trim().strip_prefix("|-- ")?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_read() {
        let release = "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID='24.04'\n";
        assert_eq!(setting(release, "NAME").as_deref(), Some("Ubuntu"));
        assert_eq!(setting(release, "VERSION_ID").as_deref(), Some("24.04"));
        assert_eq!(family(release).as_deref(), Some("debian"));
        assert_eq!(family("ID=\"amzn\"\nID_LIKE=\"fedora\"\n").as_deref(), Some("redhat"));
    }

    #[test]
    fn local_addresses_are_found_in_the_routing_table() {
        let trie = "     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n";
        assert_eq!(local_v4(trie), [IpAddr::from([10, 0, 0, 7])]);
    }
}
