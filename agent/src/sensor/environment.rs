//! Which variables of the environment events tell.

use std::collections::BTreeSet;

use lapwing_common::WANTED_MAX;
use serde::Deserialize;
use smol_str::{SmolStr, format_smolstr};

use super::record::ExecRecord;

/// Bytes of a variable by which the kernel side chooses it.
const BEGINNING_BYTES: usize = 4;
/// The value of a variable that may have been in a part of an environment which was not looked at.
const UNREAD: &str = "(not read)";
/// The ones that Elastic's rules ask for, and their like: what makes a program load other code than its own, what
/// keeps a shell from remembering, and by whom connections go.
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

/// Names of variables, each of three bytes at least and without an equals sign.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<SmolStr>")]
pub(crate) struct Wanted(BTreeSet<SmolStr>);

impl Default for Wanted {
    fn default() -> Self {
        Self(DEFAULT.into_iter().map(SmolStr::new_static).collect())
    }
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
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
        Ok(Self(names.into_iter().collect()))
    }
}

impl Wanted {
    /// Whether a variable, `NAME=value`, is one of these.
    pub(super) fn has(&self, variable: &[u8]) -> bool {
        let mut parts = variable.splitn(2, |byte| *byte == b'=');
        let name = parts.next().and_then(|name| std::str::from_utf8(name).ok());
        parts.next().is_some() && name.is_some_and(|name| self.0.contains(name))
    }

    /// Those of the record's variables that are wanted. Where not all of its environment was looked at, any other may have
    /// been there too: it is reported without its value, so that a rule about it does not miss it.
    pub(super) fn of(&self, record: &ExecRecord<'_>) -> Vec<SmolStr> {
        let found = record.environment().filter(|variable| self.has(variable));
        let mut found: Vec<SmolStr> =
            found.map(|variable| String::from_utf8_lossy(variable).into()).collect();
        if record.is_environment_cut() {
            let name = |variable: &str| SmolStr::new(variable.split('=').next().unwrap_or_default());
            let known: BTreeSet<_> = found.iter().map(|variable| name(variable)).collect();
            found.extend(self.0.difference(&known).map(|name| format_smolstr!("{name}={UNREAD}")));
        }
        found
    }

    /// No variable at all.
    pub(crate) fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// Whether none is told.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How the variables begin, for the kernel side.
    pub(super) fn beginnings(&self) -> BTreeSet<u32> {
        let beginning = |name: &SmolStr| {
            let mut bytes = [b'='; BEGINNING_BYTES];
            let len = name.len().min(BEGINNING_BYTES);
            bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
            u32::from_ne_bytes(bytes)
        };
        self.0.iter().map(beginning).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
