//! Activities: the table of what hosts do, read once.

use std::net::{IpAddr, Ipv4Addr};

use fastrand::Rng;
use lapwing_engine::Value;
use smol_str::{SmolStr, format_smolstr};

use crate::Workload;

const TABLE: &str = include_str!("activities.txt");

/// Something that a host does repeatedly.
pub(crate) struct Activity {
    weights: [u32; 3],
    pub(crate) user: &'static str,
    pub(crate) entry: &'static str,
    pub(crate) resident: Template,
    pub(crate) steps: Vec<Step>,
}

/// A step, and the step that is its parent.
pub(crate) struct Step {
    pub(crate) depth: usize,
    pub(crate) deed: Deed,
}

pub(crate) enum Deed {
    Run(Template),
    Connect { port: Option<u16>, times: u32 },
    Accept { port: u16, times: u32 },
}

/// A program with arguments that have placeholders.
pub(crate) struct Template {
    executable: &'static str,
    called: Option<&'static str>,
    args: Vec<String>,
}

/// A program as it is run.
pub(crate) struct Program {
    pub(crate) executable: SmolStr,
    /// The name of the file, and the name that it was run by if that differs.
    pub(crate) name: Value,
    pub(crate) args: Value,
    pub(crate) command_line: SmolStr,
}

impl Program {
    pub(crate) fn new(executable: SmolStr, called: Option<SmolStr>, args: Vec<SmolStr>) -> Self {
        let base = base(&executable);
        let name = match called {
            Some(called) if called != base => Value::texts([base, called]),
            _ => base.into(),
        };
        Self { executable, name, command_line: args.join(" ").into(), args: Value::texts(args) }
    }
}

fn base(path: &str) -> SmolStr {
    path.rsplit('/').next().unwrap_or_default().into()
}

/// All activities of the table.
pub(crate) fn activities() -> Vec<Activity> {
    let mut activities: Vec<Activity> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("@ ") {
            Some(header) => activities.push(activity(header)),
            None => {
                let text = line.trim_start();
                let step = Step { depth: (line.len() - text.len()) / 2, deed: deed(text) };
                if let Some(activity) = activities.last_mut() {
                    activity.steps.push(step);
                }
            }
        }
    }
    activities
}

impl Activity {
    /// How often it happens in a kind of stream, compared with others.
    pub(crate) fn weight(&self, kind: Workload) -> u32 {
        self.weights[kind as usize]
    }
}

fn activity(header: &'static str) -> Activity {
    let mut rest = header;
    let mut next = |name: &str| {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        word.strip_prefix(name).and_then(|word| word.strip_prefix('=')).unwrap_or_default()
    };
    let weights = ["exec", "connect", "mixed"].map(|name| next(name).parse().unwrap_or(0));
    let (user, entry) = (next("user"), next("entry"));
    Activity { weights, user, entry, resident: template(rest), steps: Vec::new() }
}

fn deed(text: &'static str) -> Deed {
    let connection = |text: &str| {
        let (port, times) = text.split_once(" x").unwrap_or((text, "1"));
        (port.parse().ok(), times.parse().unwrap_or(1))
    };
    match (text.strip_prefix("> "), text.strip_prefix("< ")) {
        (Some(text), _) => {
            let (port, times) = connection(text);
            Deed::Connect { port, times }
        }
        (_, Some(text)) => {
            let (port, times) = connection(text);
            Deed::Accept { port: port.unwrap_or(0), times }
        }
        _ => Deed::Run(template(text)),
    }
}

fn template(text: &'static str) -> Template {
    let (program, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (executable, called) =
        program.split_once('=').map_or((program, None), |(file, called)| (file, Some(called)));
    Template { executable, called, args: words(rest) }
}

/// Words separated by blanks; a quoted word may contain blanks.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut quoted = false;
    for c in text.chars() {
        match (c, quote) {
            ('\'' | '"', None) if word.is_empty() => (quote, quoted) = (Some(c), true),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => {
                words.push(std::mem::take(&mut word));
                quoted = false;
            }
            (c, _) => word.push(c),
        }
    }
    if quoted || !word.is_empty() {
        words.push(word);
    }
    words
}

impl Template {
    /// Fills in the placeholders.
    pub(crate) fn fill(&self, rng: &mut Rng) -> Program {
        let executable = fill(self.executable, rng);
        let called = self.called.map(|called| fill(called, rng));
        let mut args: Vec<_> = self.args.iter().map(|arg| fill(arg, rng)).collect();
        // If the table has the first argument, it is another name of the program.
        let name = called.clone().unwrap_or_else(|| base(&executable));
        let is_named = args.first().is_some_and(|first| {
            ["nginx:", "php-fpm:", "sshd:", "/", "-bash"].iter().any(|start| first.starts_with(start))
                || *first == name
        });
        if !is_named {
            args.insert(0, name);
        }
        Program::new(executable, called, args)
    }
}

const WORDS: [&str; 32] = [
    "orders",
    "billing",
    "search",
    "users",
    "cache",
    "proxy",
    "worker",
    "queue",
    "report",
    "export",
    "import",
    "parser",
    "codec",
    "render",
    "session",
    "token",
    "metrics",
    "backup",
    "mailer",
    "webhook",
    "gateway",
    "catalog",
    "invoice",
    "ledger",
    "scheduler",
    "storage",
    "archive",
    "notify",
    "profile",
    "payment",
    "router",
    "config",
];
const FOLDERS: [&str; 10] = [
    "/var/log",
    "/etc",
    "/srv/app",
    "/home/deploy/src",
    "/opt/tools",
    "/usr/share/doc",
    "/var/lib",
    "/proc/1",
    "/tmp/build",
    "/mnt/data",
];

fn fill(text: &str, rng: &mut Rng) -> SmolStr {
    if !text.contains('{') {
        return text.into();
    }
    let mut filled = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        filled.push_str(&rest[..start]);
        let hole = rest[start..].find('}').map(|end| &rest[start..=start + end]);
        let with = match hole {
            Some("{n}") => format_smolstr!("{}", rng.u32(2..100_000)),
            Some("{h}") => format_smolstr!("{:012x}", rng.u64(..1 << 48)),
            Some("{w}") => word(rng).into(),
            Some("{f}") => format_smolstr!("{}/{}.{}", folder(rng), word(rng), rng.u8(..)),
            Some("{ip}") => format_smolstr!("{}", inner(rng)),
            Some("{net}") => format_smolstr!("{}", outer(rng)),
            _ => {
                filled.push('{');
                rest = &rest[start + 1..];
                continue;
            }
        };
        filled.push_str(&with);
        rest = &rest[start + hole.map_or(1, str::len)..];
    }
    filled.push_str(rest);
    filled.into()
}

fn word(rng: &mut Rng) -> &'static str {
    WORDS[rng.usize(..WORDS.len())]
}

/// A folder to work in.
pub(crate) fn folder(rng: &mut Rng) -> &'static str {
    FOLDERS[rng.usize(..FOLDERS.len())]
}

/// An address of the data centre.
pub(crate) fn inner(rng: &mut Rng) -> IpAddr {
    Ipv4Addr::new(10, 20, rng.u8(..8), rng.u8(1..)).into()
}

/// An address of the Internet.
pub(crate) fn outer(rng: &mut Rng) -> IpAddr {
    Ipv4Addr::new(rng.u8(11..100), rng.u8(..), rng.u8(..), rng.u8(1..)).into()
}
