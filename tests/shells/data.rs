//! The data file: reverse and bind shells, and benign programs that look like them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

const TEXT: &str = include_str!("shells.toml");

/// The content of `shells.toml`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    /// The names of the rules that no benign row may match.
    #[serde(default)]
    pub(crate) own: Vec<String>,
    /// Files that several rows use.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) shell: Vec<Shell>,
    #[serde(default)]
    pub(crate) benign: Vec<Benign>,
}

/// The fields of rows: of both kinds, of shells, of benign rows.
const FIELDS: [&[&str]; 3] = [
    &["name", "needs", "check", "run", "files", "shared", "build", "user", "seconds", "quick"],
    &["kind", "tls", "bytewise", "serve", "alerts", "missed", "relayed", "bare", "further"],
    &["client", "server"],
];

/// The common part of a shell and a benign row.
#[derive(Deserialize, Debug)]
pub(crate) struct Act {
    pub(crate) name: String,
    /// Required programs, and required files by their full paths. Without them the row is skipped.
    #[serde(default)]
    pub(crate) needs: Vec<String>,
    /// The script that runs on the attacked host, in the row's folder.
    pub(crate) run: String,
    /// Files in the folder, by their names.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// Names of files of [`Data::files`] that are copied to the folder too.
    #[serde(default)]
    pub(crate) shared: Vec<String>,
    /// A further requirement, as a script that must succeed.
    #[serde(default)]
    pub(crate) check: String,
    /// A script that root runs in the folder before, such as a compiler.
    #[serde(default)]
    pub(crate) build: String,
    /// The user who runs it. Default: root.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// How long it may take.
    #[serde(default = "seconds")]
    pub(crate) seconds: u64,
    /// Whether it is one of the few rows that run without `--shells`.
    #[serde(default)]
    pub(crate) quick: bool,
}

fn seconds() -> u64 {
    15
}

/// A reverse or a bind shell.
#[derive(Deserialize, Debug)]
pub(crate) struct Shell {
    #[serde(flatten)]
    pub(crate) act: Act,
    #[serde(default)]
    pub(crate) kind: Kind,
    /// Whether the attacker's end speaks TLS.
    #[serde(default)]
    pub(crate) tls: bool,
    /// Whether each byte is sent as one datagram.
    #[serde(default)]
    pub(crate) bytewise: bool,
    /// The answer of the attacker's second port to an HTTP request.
    #[serde(default)]
    pub(crate) serve: Option<String>,
    /// One of these rules must raise an alert; any rule if empty.
    #[serde(default)]
    pub(crate) alerts: Vec<String>,
    /// Why no rule finds it.
    #[serde(default)]
    pub(crate) missed: Option<String>,
    /// Whether the process with the socket is not the shell, and is not part of the alert.
    #[serde(default)]
    pub(crate) relayed: bool,
    /// Whether its commands run without a shell, or each in a new one, so that an alert need not name a shell.
    #[serde(default)]
    pub(crate) bare: bool,
    /// Whether it was not among the shells with which the rules were developed.
    #[serde(default)]
    pub(crate) further: bool,
}

/// The direction and the transport of the shell.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The shell connects out.
    #[default]
    Reverse,
    /// The shell waits for a connection.
    Bind,
    /// The shell sends datagrams out.
    Udp,
}

/// A benign program that looks like a shell over the network.
#[derive(Deserialize, Debug)]
pub(crate) struct Benign {
    #[serde(flatten)]
    pub(crate) act: Act,
    /// The script that runs on the remote host when the first port listens on either host.
    #[serde(default)]
    pub(crate) client: Option<String>,
    /// The script that runs on the remote host from the beginning.
    #[serde(default)]
    pub(crate) server: Option<String>,
}

impl Data {
    pub(crate) fn read() -> Self {
        toml::from_str(TEXT).expect("shells.toml")
    }

    /// Unknown fields of rows. Serde ignores them, because a row is flattened from two parts.
    pub(crate) fn unknown() -> Vec<String> {
        let table: toml::Table = toml::from_str(TEXT).expect("shells.toml");
        let of = |kind: &str, own: usize| {
            let rows = table[kind].as_array().cloned().unwrap_or_default();
            let fields = rows.into_iter().flat_map(|row| row.as_table().cloned().unwrap_or_default());
            let known = [FIELDS[0], FIELDS[own]].concat();
            fields.map(|(name, _)| name).filter(move |name| !known.contains(&name.as_str()))
        };
        of("shell", 1).chain(of("benign", 2)).collect()
    }
}

impl Act {
    /// The missing requirement of this machine, if any.
    pub(crate) fn missing(&self) -> Option<String> {
        if let Some(need) = self.needs.iter().find(|need| !is_there(need)) {
            return Some(format!("{need} is missing"));
        }
        let mut bash = Command::new("bash");
        bash.args(["-c", &self.check])
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let fails = !self.check.is_empty() && !bash.status().expect("bash").success();
        fails.then(|| format!("this fails: {}", self.check.trim()))
    }
}

/// The search path for programs: that of services, and Go's folder.
pub(crate) const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin";

fn is_there(need: &str) -> bool {
    if need.starts_with('/') {
        return Path::new(need).exists();
    }
    PATH.split(':').any(|folder| Path::new(folder).join(need).exists())
}

/// The values of the placeholders of a row.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    pub(crate) near: &'static str,
    pub(crate) near_ipv6: &'static str,
    pub(crate) far: &'static str,
    pub(crate) far_ipv6: &'static str,
    pub(crate) port: u16,
    pub(crate) folder: String,
}

/// How many ports a row has.
pub(crate) const PORTS: u16 = 4;

impl Words {
    /// A text of the row with its placeholders replaced.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("{host}", self.far)
            .replace("{host6}", self.far_ipv6)
            .replace("{hostbytes}", &self.far.replace('.', ","))
            .replace("{near}", self.near)
            .replace("{near6}", self.near_ipv6)
            .replace("{port}", &self.port.to_string())
            .replace("{port2}", &self.second_port().to_string())
            .replace("{port3}", &(self.port + 2).to_string())
            .replace("{dir}", &self.folder)
    }

    pub(crate) fn second_port(&self) -> u16 {
        self.port + 1
    }

    pub(crate) fn has_port(&self, port: u64) -> bool {
        (u64::from(self.port)..u64::from(self.port + PORTS)).contains(&port)
    }
}
