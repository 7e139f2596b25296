//! The benign work as data: programs with their packages, files, servers and acts.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::needs;

/// All of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workload {
    /// Programs, or files by their paths, and Debian's packages that hold them. What is not here is not installed.
    packages: BTreeMap<String, String>,
    /// Files that scripts use, by their names.
    pub(super) files: BTreeMap<String, String>,
    /// What runs as long as acts do.
    #[serde(rename = "server")]
    pub(super) servers: Vec<Server>,
    /// What is done.
    #[serde(rename = "act")]
    pub(super) acts: Vec<Act>,
}

/// A server that acts share.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) name: String,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default = "Place::there")]
    pub(super) host: Place,
    /// A script that lasts as long as the server.
    pub(super) run: String,
    /// A script that succeeds once the server is ready.
    pub(super) ready: String,
}

/// Something that hosts do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Act {
    pub(super) name: String,
    pub(super) class: String,
    /// Programs, or files by their paths, without which it is skipped.
    #[serde(default)]
    needs: Vec<String>,
    /// Servers that it talks to.
    #[serde(default)]
    pub(super) uses: Vec<String>,
    #[serde(default = "Place::here")]
    pub(super) host: Place,
    #[serde(default = "root")]
    pub(super) user: String,
    /// Rounds of a whole run.
    count: u32,
    /// A script that is run once before them.
    #[serde(default)]
    pub(super) setup: String,
    /// The script of a round.
    pub(super) run: String,
    /// Why a rule may alert it: it is what such a rule looks for, done by an authorized user. Such alerts are counted
    /// separately.
    pub(super) may_alert: Option<String>,
}

/// One of two hosts.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Place {
    Here,
    There,
}

/// An act that is not done.
pub(super) struct Skipped {
    pub(super) act: String,
    pub(super) why: String,
}

impl Place {
    fn here() -> Self {
        Self::Here
    }

    fn there() -> Self {
        Self::There
    }
}

/// Who does what names no other user.
pub(super) const ROOT: &str = "root";

fn root() -> String {
    ROOT.into()
}

impl Act {
    /// How often it is done at a scale.
    pub(super) fn rounds(&self, scale: f64) -> u32 {
        // No count is near what such a number cannot hold.
        ((f64::from(self.count) * scale).round() as u32).max(1)
    }
}

impl Workload {
    /// Reads it.
    ///
    /// # Errors
    /// Where it is not sound.
    pub(super) fn read() -> Result<Self> {
        let workload: Self = toml::from_str(include_str!("workload.toml")).context("workload.toml")?;
        let names = workload.servers.iter().map(|server| &server.name);
        let names = names.chain(workload.acts.iter().map(|act| &act.name));
        let mut known = BTreeSet::new();
        for name in names {
            let is_plain =
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            ensure!(is_plain, "`{name}` is no name of lower case letters, digits and dashes");
            ensure!(known.insert(name), "`{name}` is named twice");
        }
        for act in &workload.acts {
            let is_server = |name: &String| workload.servers.iter().any(|server| server.name == *name);
            if let Some(name) = act.uses.iter().find(|name| !is_server(name)) {
                bail!("{} uses `{name}`, which is no server", act.name);
            }
        }
        Ok(workload)
    }

    /// Keeps the acts of these classes and those of these names, all where none are named, and the servers that they use.
    ///
    /// # Errors
    /// Where nothing is left.
    pub(super) fn keep(&mut self, classes: &[String], names: &[String]) -> Result<()> {
        let all = classes.is_empty() && names.is_empty();
        self.acts.retain(|act| all || classes.contains(&act.class) || names.contains(&act.name));
        ensure!(!self.acts.is_empty(), "there is no such act");
        self.drop_idle_servers();
        Ok(())
    }

    fn drop_idle_servers(&mut self) {
        let acts = &self.acts;
        self.servers.retain(|server| acts.iter().any(|act| act.uses.contains(&server.name)));
    }

    /// The programs that it takes and that have a package, each with it.
    pub(super) fn programs(&self) -> Vec<(&str, &str)> {
        let needs = self.acts.iter().flat_map(|act| &act.needs);
        let needs: BTreeSet<_> = needs.chain(self.servers.iter().flat_map(|server| &server.needs)).collect();
        let with_package = |name: &String| self.packages.get_key_value(name);
        let packages = needs.into_iter().filter_map(with_package);
        packages.map(|(name, package)| (name.as_str(), package.as_str())).collect()
    }

    /// Drops the acts whose programs, or their servers' programs, are not there, and the servers that none uses then.
    pub(super) fn skip_what_lacks_programs(&mut self) -> Vec<Skipped> {
        let mut skipped = Vec::new();
        let (servers, packages) = (&self.servers, &self.packages);
        self.acts.retain(|act| {
            let of_servers = servers.iter().filter(|server| act.uses.contains(&server.name));
            let mut needs = act.needs.iter().chain(of_servers.flat_map(|server| &server.needs));
            let Some(name) = needs.find(|name| !needs::is_there(name)) else { return true };
            let why = match packages.get(name) {
                Some(package) => format!("no {name} here (Debian package {package})"),
                None => format!("no {name} here"),
            };
            skipped.push(Skipped { act: act.name.clone(), why });
            false
        });
        self.drop_idle_servers();
        skipped
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::Workload;

    /// What the shell says of a script without running it.
    fn faults(script: &str) -> String {
        let mut command = Command::new("bash");
        command.arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut bash = command.spawn().unwrap();
        bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        String::from_utf8_lossy(&bash.wait_with_output().unwrap().stderr).into_owned()
    }

    #[test]
    fn every_script_is_one() {
        let workload = Workload::read().unwrap();
        let of_servers = workload
            .servers
            .iter()
            .flat_map(|server| [(&server.name, &server.run), (&server.name, &server.ready)]);
        let of_acts = workload.acts.iter().flat_map(|act| [(&act.name, &act.setup), (&act.name, &act.run)]);
        for (name, script) in of_servers.chain(of_acts) {
            assert_eq!(faults(script), "", "{name}");
        }
        assert_eq!(faults(&workload.files["lib.sh"]), "");
    }

    #[test]
    fn every_kind_of_work_is_there() {
        let workload = Workload::read().unwrap();
        let classes: BTreeSet<_> = workload.acts.iter().map(|act| act.class.as_str()).collect();
        for class in CLASSES {
            assert!(classes.contains(class), "{class}");
        }
        assert_eq!(classes.len(), CLASSES.len(), "{classes:?}");
    }

    const CLASSES: &[&str] = &[
        "backup",
        "build",
        "bulk",
        "ci",
        "container",
        "cron",
        "database",
        "git",
        "inetd",
        "install",
        "language-server",
        "monitoring",
        "relay",
        "shell",
        "ssh",
        "terminal",
        "web",
    ];
}
