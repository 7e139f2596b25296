//! What rules of type `threat_match` say of indicators.

use super::{Placed, Reader};
use crate::lang::{EventQuery, kql};
use crate::rule::document::DocumentTable;
use crate::rule::{ThreatEntry, ThreatMapping};

/// Where the indicator lies in its document, where the rule does not say; as in the Elastic stack.
const INDICATOR_PATH: &str = "threat.indicator";
/// Most entries of a mapping, over all its groups.
const ENTRIES_MAX: usize = 256;

impl<'a> Reader<'a, '_> {
    /// The `threat_…` keys. `threat_index` says nothing here: indicators come from the files of the configuration.
    pub(super) fn threat_match(&mut self) -> Option<ThreatMapping> {
        if let Some(other) =
            self.table.text("threat_language", self.faults).filter(|language| language.value != "kuery")
        {
            let message = format!("the language `{}` is not supported for indicators", other.value);
            self.wrong(other.span, message, "`kuery` is");
        }
        let query = self.threat_query();
        if self.table.value("threat_mapping").is_none() {
            self.faults.push(self.table.missing("threat_mapping"));
        }
        let mut groups = Vec::new();
        for group in self.table.tables("threat_mapping", self.faults) {
            let written = group.tables("entries", self.faults);
            let entries: Vec<_> = written.iter().filter_map(|entry| self.entry(entry)).collect();
            let whole = entries.len() == written.len();
            if whole && entries.iter().all(|entry: &ThreatEntry| entry.negate) {
                let help = "give it an entry without `negate`";
                self.wrong(group.span(), "a group of the mapping needs a value in common", help);
            }
            groups.push(entries);
        }
        if groups.iter().map(Vec::len).sum::<usize>() > ENTRIES_MAX {
            let span = self.table.span();
            self.wrong(span, format!("a mapping has {ENTRIES_MAX} entries at most"), "");
        }
        let path = self.table.text("threat_indicator_path", self.faults).map(|path| path.value);
        let path = path.filter(|path| !path.is_empty()).unwrap_or(INDICATOR_PATH);
        Some(ThreatMapping { query, groups, indicator_path: path.to_owned() })
    }

    /// An entry: the event's field, and the indicator's as `value`.
    fn entry(&mut self, table: &DocumentTable<'a>) -> Option<ThreatEntry> {
        let field = table.required("field", self.faults).and_then(|name| self.lookup(name));
        let indicator = table.required("value", self.faults)?.value.to_owned();
        let negate = table.boolean("negate", self.faults).unwrap_or(false);
        Some(ThreatEntry { field: field?, indicator, negate })
    }

    /// `threat_query`. How old an indicator may be, with which Elastic's rules begin, says nothing here: what lies in the
    /// files counts.
    fn threat_query(&mut self) -> Option<EventQuery> {
        let query =
            self.table.text("threat_query", self.faults).filter(|query| !query.value.trim().is_empty())?;
        let age = age_length(query.value);
        // Blanks in its place keep every position what it is.
        let text = format!("{}{}", " ".repeat(age), &query.value[age..]);
        if text.trim().is_empty() || text.trim() == "*:*" {
            return None;
        }
        let found = kql::parse(&text, self.schema);
        let Placed { span, .. } = query;
        self.found(span, found)
    }
}

/// How long `@timestamp >= "now-30d/d" and` at the start of a query is; zero where it does not begin so.
fn age_length(query: &str) -> usize {
    let age = || {
        let rest = query.trim_start().strip_prefix("@timestamp")?.trim_start();
        let rest = rest.strip_prefix('>')?.trim_start_matches('=').trim_start();
        let rest = rest.strip_prefix("\"now-").and_then(|rest| rest.split_once('"')).map(|(_, rest)| rest)?;
        let after = rest.trim_start();
        if after.is_empty() { Some(rest) } else { after.strip_prefix("and ") }
    };
    age().map_or(0, |rest| query.len() - rest.len())
}
