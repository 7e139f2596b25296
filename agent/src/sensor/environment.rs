//! Which variables of the environment are reported in events.

use std::collections::BTreeSet;

use lapwing_common::WANTED_MAX;
use serde::Deserialize;
use smol_str::{SmolStr, format_smolstr};

use super::record::ExecRecord;

/// The bytes of a variable's name by which the kernel side selects it.
const BEGINNING_BYTES: usize = 4;
/// The value of a variable that may be in the part of an environment that was not read.
const UNREAD: &str = "(not read)";
/// Those that Elastic's rules use, and similar ones: variables that load code into a program, that disable a shell's
/// history, and that set proxies.
const DEFAULT: [&str; 15] = [
    "ALL_PROXY",
    "GLIBC_TUNABLES",
    "HISTCONTROL",
    "HISTFILE",
    "HISTFILESIZE",
    "HISTIGNORE",
    "HISTSIZE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "all_proxy",
    "http_proxy",
    "https_proxy",
];

/// The variables that events have.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<SmolStr>")]
pub(crate) struct Wanted {
    /// Their names, each of three bytes at least and without an equals sign.
    names: BTreeSet<SmolStr>,
    /// Prefixes of names that rules leave open, each of at least [`BEGINNING_BYTES`].
    beginnings: BTreeSet<SmolStr>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self::of_names(DEFAULT.into_iter().map(SmolStr::new_static))
    }
}

/// As the key of the configuration has it: a list.
impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names.union(&self.beginnings)).finish()
    }
}

impl TryFrom<Vec<SmolStr>> for Wanted {
    type Error = String;

    fn try_from(names: Vec<SmolStr>) -> Result<Self, String> {
        let is_wrong = |name: &&SmolStr| name.len() < BEGINNING_BYTES - 1 || name.contains(['=', '\0']);
        if let Some(name) = names.iter().find(is_wrong) {
            return Err(format!(
                "{name:?} is no name of a variable: it has three bytes at least, and no \"=\""
            ));
        }
        if names.len() > WANTED_MAX as usize {
            return Err(format!("{} variables are too many: name {WANTED_MAX} at most", names.len()));
        }
        Ok(Self::of_names(names))
    }
}

/// A variable that a rule names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// By its whole name.
    Whole(SmolStr),
    /// By a prefix of its name.
    Beginning(SmolStr),
}

/// The variables that are named in a text that a rule compares with `NAME=value`: the part before the equals sign; in a
/// regular expression, each word. Without an equals sign, it is a prefix.
fn named(text: &str) -> Vec<Named> {
    let (names, has_value) = text.split_once('=').map_or((text, false), |(names, _)| (names, true));
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = names.split_inclusive(|c| !is_of_name(c)).filter_map(|word| {
        let name = word.trim_end_matches(|c| !is_of_name(c));
        let is_open = !has_value || word[name.len()..].starts_with(['*', '?', '.', '[', '\\', '+', '{']);
        let named = if is_open { Named::Beginning } else { Named::Whole };
        (!name.is_empty()).then(|| named(name.into()))
    });
    words.collect()
}

impl Wanted {
    fn of_names(names: impl IntoIterator<Item = SmolStr>) -> Self {
        Self { names: names.into_iter().collect(), beginnings: BTreeSet::new() }
    }

    /// These, and those that rules name in such a text; as written and in capitals, because a comparison may ignore
    /// case. Also returns what a rule names and cannot have: its name is too short, or there are too many.
    pub(crate) fn with<'a>(&self, texts: impl IntoIterator<Item = &'a SmolStr>) -> (Self, Vec<SmolStr>) {
        let (mut wanted, mut unmet) = (self.clone(), Vec::new());
        for one in texts.into_iter().flat_map(|text| named(text)) {
            let (name, len_min) = match &one {
                Named::Whole(name) => (name, BEGINNING_BYTES - 1),
                Named::Beginning(name) => (name, BEGINNING_BYTES),
            };
            if name.len() < len_min || wanted.len() + 2 > WANTED_MAX as usize {
                unmet.push(name.clone());
                continue;
            }
            let set = if matches!(one, Named::Whole(_)) { &mut wanted.names } else { &mut wanted.beginnings };
            set.extend([name.clone(), name.to_ascii_uppercase().into()]);
        }
        (wanted, unmet)
    }

    /// The names, and the prefixes.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.union(&self.beginnings).map(SmolStr::as_str)
    }

    fn len(&self) -> usize {
        self.names.len() + self.beginnings.len()
    }

    /// Whether a variable, `NAME=value`, is one of these.
    pub(super) fn has(&self, variable: &[u8]) -> bool {
        let mut parts = variable.splitn(2, |byte| *byte == b'=');
        let name = parts.next().and_then(|name| std::str::from_utf8(name).ok());
        parts.next().is_some() && name.is_some_and(|name| self.has_name(name))
    }

    fn has_name(&self, name: &str) -> bool {
        self.names.contains(name) || self.beginnings.iter().any(|beginning| name.starts_with(&**beginning))
    }

    /// The wanted variables of the record. If a part of its environment was not read, each missing one is reported
    /// without its value, so that a rule about it can match.
    pub(super) fn of(&self, record: &ExecRecord<'_>) -> Vec<SmolStr> {
        let found = record.environment().filter(|variable| self.has(variable));
        let mut found: Vec<SmolStr> =
            found.map(|variable| String::from_utf8_lossy(variable).into()).collect();
        if record.is_environment_cut() {
            let name = |variable: &str| SmolStr::new(variable.split('=').next().unwrap_or_default());
            let known: BTreeSet<_> = found.iter().map(|variable| name(variable)).collect();
            let all = self.names.union(&self.beginnings).filter(|name| !known.contains(*name));
            found.extend(all.map(|name| format_smolstr!("{name}={UNREAD}")));
        }
        found
    }

    /// No variable at all.
    pub(crate) fn none() -> Self {
        Self::of_names([])
    }

    /// Whether none is reported.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The prefixes of the variables, for the kernel side.
    pub(super) fn beginnings(&self) -> BTreeSet<u32> {
        let beginning = |name: &SmolStr| {
            let mut bytes = [b'='; BEGINNING_BYTES];
            let len = name.len().min(BEGINNING_BYTES);
            bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
            u32::from_ne_bytes(bytes)
        };
        self.names.union(&self.beginnings).map(beginning).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_variables() {
        for (text, names, beginnings, unmet) in [
            ("LD_AUDIT=/tmp/x.so", &["LD_AUDIT"][..], &[][..], &[][..]),
            ("RUNNER_TRACKING_ID*", &[], &["RUNNER_TRACKING_ID"], &[]),
            ("ld_pre*=/tmp/*", &[], &["LD_PRE", "ld_pre"], &[]),
            ("*PATH=*", &["PATH"], &[], &[]),
            ("(PS1|PS22)=.+", &["PS1", "PS22"], &[], &[]),
            ("LD*", &[], &[], &["LD"]),
            ("*", &[], &[], &[]),
        ] {
            let (wanted, found) = Wanted::none().with([&SmolStr::new(text)]);
            assert_eq!(wanted.names.iter().collect::<Vec<_>>(), names, "{text}");
            assert_eq!(wanted.beginnings.iter().collect::<Vec<_>>(), beginnings, "{text}");
            assert_eq!(found, unmet, "{text}");
        }
        let many: Vec<_> = (0..WANTED_MAX).map(|number| format_smolstr!("VARIABLE_{number}=*")).collect();
        let (wanted, unmet) = Wanted::default().with(&many);
        assert!(wanted.len() <= WANTED_MAX as usize && unmet.len() >= DEFAULT.len());
        assert!(wanted.has(b"VARIABLE_1=x") && wanted.has(b"LD_PRELOAD=x"));
        let (open, _) = Wanted::none().with([&SmolStr::new("RUNNER_*")]);
        assert!(open.has(b"RUNNER_TRACKING_ID=0") && !open.has(b"RUNNING=0") && !open.has(b"RUNNER_X"));
    }

    #[test]
    fn variables_are_chosen_by_their_whole_names() {
        let wanted = Wanted::try_from(vec!["LD_PRELOAD".into(), "PS1".into()]).unwrap();
        for (variable, is_wanted) in [
            ("LD_PRELOAD=/tmp/x.so", true),
            ("LD_PRELOAD=", true),
            ("LD_PRELOAD", false),
            ("LD_PRELOADED=1", false),
            ("LD_PRE=1", false),
            ("ld_preload=1", false),
            ("PS1=$ ", true),
            ("PS12=", false),
            ("", false),
            ("=", false),
        ] {
            assert_eq!(wanted.has(variable.as_bytes()), is_wanted, "{variable}");
        }
        let beginnings: Vec<_> = wanted.beginnings().into_iter().map(u32::to_ne_bytes).collect();
        assert_eq!(beginnings.len(), 2);
        assert!(beginnings.contains(b"LD_P") && beginnings.contains(b"PS1="));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["", "A", "AB", "A=B", "LD_PRELOAD="] {
            assert!(Wanted::try_from(vec![name.into()]).is_err(), "{name}");
        }
        assert!(Wanted::try_from(vec![SmolStr::new("NAME"); 257]).is_err());
        assert_eq!(Wanted::try_from(DEFAULT.map(SmolStr::new).to_vec()).unwrap(), Wanted::default());
    }
}
