//! `[lapwing] allow = ["W0401"]`: warnings that a rule file says are known and meant.

use super::document::DocumentTable;
use super::keys::check_lapwing;
use crate::lang::Level;
use crate::lang::diagnostic::{Diagnostic, code};
use crate::lang::suggest::nearest;

/// Takes out the warnings that the file allows.
pub(super) fn take_allowed(root: &DocumentTable<'_>, found: &mut Vec<Diagnostic>) {
    let Some(table) = root.table("lapwing", found) else { return };
    check_lapwing(&table, found);
    let warnings = || code::ALL.iter().map(|code| code.id).filter(|id| id.starts_with('W'));
    let mut allowed = Vec::new();
    for entry in table.texts("allow", found) {
        if warnings().any(|id| id == entry.value) {
            allowed.push(entry.value);
            continue;
        }
        let message = format!("there is no warning {:?} to allow", entry.value);
        let fault = Diagnostic::new(code::BAD_VALUE, entry.span, message);
        found.push(match nearest(entry.value, warnings()) {
            Some(near) => fault.help(format!("did you mean {near:?}?")),
            None => fault.help("warnings have codes such as \"W0401\"; errors cannot be allowed"),
        });
    }
    found.retain(|found| found.level() == Level::Error || !allowed.contains(&found.code.id));
}

#[cfg(test)]
mod tests {
    use crate::{Loaded, Schema};

    fn codes(lapwing: &str) -> Vec<&'static str> {
        let file = format!(
            "[rule]\nrule_id = 'id'\nname = 'name'\ndescription = 'text'\nseverity = 'low'\ntype = 'eql'\n\
             query = 'sequence [process where host.os.type == \"Linux\"] [process where true]'\n{lapwing}"
        );
        let loaded = Loaded::read([("rule.toml", file.as_bytes())], &mut Schema::new());
        loaded.reports.iter().flat_map(|report| &report.diagnostics).map(|found| found.code.id).collect()
    }

    #[test]
    fn warnings_that_a_file_allows_are_not_reported() {
        for (lapwing, expected) in [
            ("", &["W0408", "W0404"][..]),
            ("[lapwing]\nallow = [\"W0408\"]", &["W0404"]),
            ("[lapwing]\nallow = [\"W0404\", \"W0408\"]", &[]),
            ("[lapwing]\nallow = [\"W9999\", \"E0201\"]", &["W0408", "W0404", "E0303", "E0303"]),
            ("[lapwing]\nalow = []", &["W0408", "W0404", "E0304"]),
        ] {
            assert_eq!(codes(lapwing), expected, "{lapwing}");
        }
    }
}
