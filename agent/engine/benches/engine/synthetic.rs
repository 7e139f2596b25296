//! Rules by a seed, in the proportions of real rule sets: most name programs and arguments, with exclusions; some are
//! sequences, some new terms; some are about files, of which no stream has events.

use std::fmt::Write as _;

use fastrand::Rng;

/// Programs that streams hold, and that rules name.
const COMMON: [&str; 24] = [
    "bash",
    "sh",
    "dash",
    "curl",
    "wget",
    "python3",
    "perl",
    "nc",
    "git",
    "cat",
    "grep",
    "find",
    "chmod",
    "tar",
    "ssh",
    "systemctl",
    "crontab",
    "base64",
    "id",
    "awk",
    "openssl",
    "mount",
    "docker",
    "kubectl",
];
const SHELLS: &str = r#"("bash", "dash", "sh", "tcsh", "csh", "zsh", "ksh", "fish")"#;
const FOLDERS: [&str; 10] = [
    "/tmp/*",
    "/var/tmp/*",
    "/dev/shm/*",
    "./*",
    "/run/*",
    "/home/*/.*",
    "/var/www/*",
    "/boot/*",
    "/srv/*",
    "/etc/cron*",
];

/// So many rule files.
pub(super) fn rules(count: usize, seed: u64) -> Vec<(String, Vec<u8>)> {
    let mut rng = Rng::with_seed(seed);
    (0..count).map(|number| (format!("{number:05}.toml"), rule(number, &mut rng).into_bytes())).collect()
}

fn rule(number: usize, rng: &mut Rng) -> String {
    let (ty, language, query) = match rng.u8(..100) {
        0..70 => ("eql", "eql", event(rng)),
        70..78 => ("eql", "eql", file(rng)),
        78..90 => ("eql", "eql", sequence(rng)),
        _ => ("new_terms", "kuery", terms(rng)),
    };
    let mut rule = format!(
        "[rule]\nrule_id = \"00000000-0000-4000-8000-{number:012}\"\nname = \"Synthetic {number}\"\n\
         description = \"Made by a seed.\"\nseverity = \"low\"\ntype = \"{ty}\"\nlanguage = \"{language}\"\n\
         query = '''\n{query}\n'''\n"
    );
    if ty == "new_terms" {
        rule.push_str(
            "[rule.new_terms]\nfield = \"new_terms_fields\"\nvalue = [\"host.id\", \"process.executable\"]\n\
             [[rule.new_terms.history_window_start]]\nfield = \"history_window_start\"\nvalue = \"now-7d\"\n",
        );
    }
    rule
}

/// A name that hardly any program has.
fn rare(rng: &mut Rng) -> String {
    (0..rng.usize(4..11)).map(|_| rng.lowercase()).collect()
}

/// A few names, mostly rare ones, as a list.
fn names(rng: &mut Rng, common_percent: u8) -> String {
    let count = rng.usize(1..5);
    let names: Vec<_> = (0..count)
        .map(|_| {
            let common = rng.u8(..100) < common_percent;
            let name = if common { COMMON[rng.usize(..COMMON.len())].to_owned() } else { rare(rng) };
            format!("\"{name}{}\"", if rng.u8(..8) == 0 { "*" } else { "" })
        })
        .collect();
    format!("({})", names.join(", "))
}

fn start() -> String {
    "process where host.os.type == \"linux\" and event.type == \"start\" and \
     event.action in (\"exec\", \"exec_event\", \"start\", \"executed\", \"process_started\")"
        .to_owned()
}

fn event(rng: &mut Rng) -> String {
    let mut query = start();
    // Writing to a String cannot fail.
    let _ = match rng.u8(..10) {
        0..6 => write!(query, " and process.name : {}", names(rng, 25)),
        6..8 => write!(
            query,
            " and process.parent.name : {} and process.name : {}",
            names(rng, 10),
            names(rng, 40)
        ),
        8 => write!(query, " and process.executable : \"{}\"", FOLDERS[rng.usize(..FOLDERS.len())]),
        _ => write!(query, " and process.command_line : \"*{}*{}*\"", rare(rng), rare(rng)),
    };
    let _ = match rng.u8(..4) {
        0 => write!(query, " and process.args : (\"-{}\", \"--{}*\")", rng.lowercase(), rare(rng)),
        1 => write!(query, " and process.args == \"-c\" and process.command_line : \"*{}*\"", rare(rng)),
        2 => write!(query, " and process.parent.name in {SHELLS} and process.args_count >= {}", rng.u8(2..6)),
        _ => write!(query, " and process.parent.executable != null"),
    };
    exclusions(rng, &mut query);
    query
}

fn exclusions(rng: &mut Rng, query: &mut String) {
    if rng.bool() {
        return;
    }
    let _ = write!(
        query,
        " and not (process.parent.executable in (\"/usr/bin/{}\", \"/opt/{}/bin/{}\") or \
         process.working_directory : (\"/opt/{}*\", \"/var/lib/{}/*\") or process.args : \"*/{}*\")",
        rare(rng),
        rare(rng),
        rare(rng),
        rare(rng),
        rare(rng),
        rare(rng)
    );
}

fn file(rng: &mut Rng) -> String {
    format!(
        "file where host.os.type == \"linux\" and event.action in (\"creation\", \"rename\") and file.path : \
         (\"/etc/{}/*\", \"/usr/lib/{}*\") and not process.name in (\"dpkg\", \"rpm\", \"dnf\", \"{}\")",
        rare(rng),
        rare(rng),
        rare(rng)
    )
}

fn sequence(rng: &mut Rng) -> String {
    let first = event(rng);
    let second = if rng.bool() {
        format!(
            "network where host.os.type == \"linux\" and event.action == \"connection_attempted\" and \
             not cidrmatch(destination.ip, \"127.0.0.0/8\", \"10.0.0.0/8\", \"::1\") and process.name : {}",
            names(rng, 40)
        )
    } else {
        event(rng)
    };
    format!(
        "sequence by host.id, process.parent.entity_id with maxspan={}s\n [{first}]\n [{second}]",
        rng.u8(1..30)
    )
}

fn terms(rng: &mut Rng) -> String {
    format!(
        "host.os.type:linux and event.category:process and event.type:start and event.action:exec and \
         process.parent.name:({} or {} or {}*) and process.name:({} or {}) and not process.args:(*{}* or {}*)",
        COMMON[rng.usize(..4)],
        rare(rng),
        rare(rng),
        rare(rng),
        COMMON[rng.usize(..COMMON.len())],
        rare(rng),
        rare(rng)
    )
}
