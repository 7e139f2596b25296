//! Texts that people and machines write: whatever they hold, they are read or refused by name, and what was read runs.

use std::sync::{Arc, LazyLock};

use lapwing_engine::lang::format::{self, Unformatted};
use lapwing_engine::lang::{Diagnostic, Level, eql, kql};
use lapwing_engine::{Event, Loaded, Rule, Schema};
use serde_json::Value as Json;

use super::run::{eql_rule, kql_rule, rule as rule_of, same_as_reference, usual_events};

/// An EQL query is read or refused at a place; what is read finds what the reference finds.
pub(super) fn eql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut schema = Schema::new();
    let found = eql::parse(text, &mut schema);
    check_diagnostics(text, &found);
    if let Ok((query, _)) = found {
        query.display(&schema).to_string();
        evaluated(schema, &[eql_rule(0, query)]);
    }
}

/// As `eql`, of KQL.
pub(super) fn kql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut schema = Schema::new();
    let found = kql::parse(text, &mut schema);
    check_diagnostics(text, &found);
    if let Ok((query, _)) = found {
        query.display(&schema).to_string();
        evaluated(schema, &[kql_rule(0, query)]);
    }
}

/// A query that can be read has a layout in which it means the same, and which stays as it is when it is laid out again.
pub(super) fn fmt(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (name, layout) in [("eql", format::eql as Layout), ("kql", format::kql)] {
        match layout(text, &mut Schema::new()) {
            Ok(formatted) => assert_eq!(
                layout(&formatted, &mut Schema::new()).as_ref(),
                Ok(&formatted),
                "{name} {text:?} laid out once and once more"
            ),
            Err(Unformatted::Changed) => panic!("{name} {text:?} would have changed its meaning"),
            Err(Unformatted::Faults(_) | Unformatted::Comment(_)) => {}
        }
    }
}

type Layout = fn(&str, &mut Schema) -> Result<String, Unformatted>;

/// A rule file gives a rule or says why not, and never keeps another one from being read.
pub(super) fn rule(bytes: &[u8]) {
    const OTHER: &[u8] = b"[rule]\nrule_id = 'other'\nname = 'n'\ndescription = 'd'\nseverity = 'low'\ntype = 'query'\nquery = 'process.name: *'\n";
    let mut schema = Schema::new();
    let loaded = Loaded::read([("fuzzed.toml", bytes), ("zz_other.toml", OTHER)], &mut schema);
    let refused = |file: &str| loaded.reports.iter().any(|report| &*report.file == file && report.is_fault());
    assert!(!refused("zz_other.toml") || loaded.rules.iter().any(|rule| rule.id == "other"));
    for report in &loaded.reports {
        assert!(!report.diagnostics.is_empty());
        places(&report.text, &report.diagnostics);
    }
    evaluated(schema, &loaded.rules);
}

/// An event is read or refused; what is read is read again from what is written of it, and rules can be evaluated for it.
pub(super) fn event(bytes: &[u8]) {
    static RULES: LazyLock<(Arc<Schema>, Vec<Arc<Rule>>)> = LazyLock::new(|| {
        let mut schema = Schema::new();
        let queries = include_str!("../queries.txt").lines();
        let rules = queries.enumerate().map(|(number, query)| {
            let rule = rule_of(&format!("type = 'eql'\nquery = '''{query}'''"), &mut schema);
            Arc::new(Rule { id: number.to_string(), ..Rule::clone(&rule) })
        });
        let rules = rules.collect();
        (schema.into(), rules)
    });
    let (schema, rules) = &*RULES;
    let Ok(json) = serde_json::from_slice::<Json>(bytes) else { return };
    let Ok(event) = Event::from_json(schema, &json) else { return };
    let written = event.to_json(schema);
    let again = match Event::from_json(schema, &written) {
        Ok(again) => again,
        Err(error) => panic!("{error}: {written}"),
    };
    assert_eq!(event.fields(), again.fields(), "{json}\n{written}");
    same_as_reference(schema, rules, &[event.into()]);
}

/// What was read may have warnings only, what was not has a fault; and all of them have a place.
fn check_diagnostics<T>(text: &str, found: &Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>) {
    let diagnostics = match found {
        Ok((_, warnings)) => {
            assert!(warnings.iter().all(|warning| warning.level() == Level::Warning), "{warnings:?}");
            warnings
        }
        Err(faults) => {
            assert!(faults.iter().any(|fault| fault.level() == Level::Error), "{faults:?}");
            faults
        }
    };
    places(text, diagnostics);
}

/// Every place is in the text and begins and ends with a character; the end of the text is a place too.
fn places(text: &str, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let (start, end) = (diagnostic.span.start, diagnostic.span.end);
        let is_place = text.get(start..end).is_some() || (start == text.len() && end == start + 1);
        assert!(is_place, "{diagnostic:?} is no place in {text:?} of {} bytes", text.len());
        assert!(!diagnostic.message.is_empty());
    }
}

fn evaluated(schema: Schema, rules: &[Arc<Rule>]) {
    let schema = Arc::new(schema);
    let events = usual_events(&schema);
    same_as_reference(&schema, rules, &events);
}
