//! Rules about environment variables: those that need variables which are not collected, and those that match any variable.

use std::sync::Arc;

use lapwing_engine::{Exceptions, FieldId, Rule, field};

use crate::clock;
use crate::pipeline::env_vars;
use crate::sensor::Wanted;
use crate::streams;

const FIELD: FieldId = field!("process.env_vars");
/// Prefix of the variables that make a program load other code. Few programs are started with one.
const LOADERS: &str = "LD_";
/// Examples that are named first, because their values differ between users and networks.
const EXAMPLES: [&str; 2] = ["HISTSIZE", "https_proxy"];

/// Warnings about the rules, a sentence each.
pub(super) fn notes(configured: &Wanted, rules: &[Arc<Rule>], exceptions: &Exceptions) -> Vec<String> {
    let enabled = || rules.iter().filter(|rule| rule.enabled);
    let unmet = enabled().filter_map(|rule| unmet(configured, rule));
    let collected = env_vars(configured, rules, &exceptions.list);
    let taking = enabled().filter(|rule| !has_exception(exceptions, rule));
    unmet.chain(taking.filter_map(|rule| taking_any(configured, &collected, rule))).collect()
}

/// The rule names variables by prefix, so that they are not collected for it.
fn unmet(configured: &Wanted, rule: &Rule) -> Option<String> {
    let (_, unmet) = configured.with(&rule.texts(FIELD));
    (!unmet.is_empty()).then(|| {
        format!(
            "rule \"{}\" matches environment variables that begin with {unmet:?}: only those in `sensor.env_vars` are \
             collected; add them there",
            rule.name
        )
    })
}

/// The rule matches any value, and was written for events with few variables.
fn taking_any(configured: &Wanted, collected: &Wanted, rule: &Rule) -> Option<String> {
    let mut loud = loud(collected);
    if loud.is_empty() || !rule.takes_any(FIELD) || !streams::lanes(rule).contains(&streams::SENSOR.lane) {
        return None;
    }
    loud.sort_by_key(|name| !EXAMPLES.contains(name));
    loud.truncate(EXAMPLES.len());
    let hint = if self::loud(configured).is_empty() {
        "other rules name these; write an exception"
    } else {
        "set `sensor.env_vars` to [\"LD_LIBRARY_PATH\", \"LD_PRELOAD\"], or, if other rules name more, write an \
         exception: exceptions.d/README.md has an example"
    };
    Some(format!(
        "rule \"{}\" ({}) matches any value of process.env_vars; {} variables are collected, such as {}: it may alert \
         for each new value of one; {hint}",
        rule.name,
        rule.file,
        collected.names().count(),
        loud.join(" and "),
    ))
}

/// The variables of ordinary programs.
fn loud(wanted: &Wanted) -> Vec<&str> {
    wanted.names().filter(|name| !name.starts_with(LOADERS)).collect()
}

/// Whether an exception covers the variables that the rule matches.
fn has_exception(exceptions: &Exceptions, rule: &Rule) -> bool {
    let mut list = exceptions.list.iter().filter(|exception| !exception.is_over(clock::now()));
    list.any(|exception| exception.is_for(rule) && exception.condition.fields().contains(&FIELD))
}

#[cfg(test)]
mod tests {
    use lapwing_engine::{Loaded, Schema};

    use super::*;

    const KQL: &str = "language = \"kuery\"\ntype = \"new_terms\"";

    fn rule(name: &str, kind: &str, query: &str, rest: &str) -> String {
        format!(
            "[rule]\nrule_id = \"{name}\"\nname = \"{name}\"\ndescription = \"d\"\nrisk_score = 1\nseverity = \"low\"\n\
             index = [\"logs-endpoint.events.*\"]\n{kind}\nquery = '''{query}'''\n{rest}"
        )
    }

    fn terms(field: &str) -> String {
        format!(
            "[rule.new_terms]\nfield = \"new_terms_fields\"\nvalue = [\"{field}\"]\n\
             [[rule.new_terms.history_window_start]]\nfield = \"history_window_start\"\nvalue = \"now-5d\"\n"
        )
    }

    fn found(rules: &[String], exceptions: &str, configured: &[&str]) -> Vec<String> {
        let mut schema = Schema::new();
        let names: Vec<_> = (0..rules.len()).map(|number| format!("{number}.toml")).collect();
        let files = names.iter().zip(rules).map(|(name, rule)| (name.as_str(), rule.as_bytes()));
        let loaded = Loaded::read(files, &mut schema);
        assert_eq!(loaded.refused(), 0, "{:?}", loaded.reports);
        let exceptions = Exceptions::read([("e.toml", exceptions.as_bytes())], &mut schema);
        assert_eq!(exceptions.refused, 0, "{:?}", exceptions.reports);
        let names: Vec<_> = configured.iter().map(|name| (*name).into()).collect();
        let configured = if names.is_empty() { Wanted::default() } else { Wanted::try_from(names).unwrap() };
        notes(&configured, &loaded.rules, &exceptions)
    }

    #[test]
    fn rules_that_match_any_value_are_reported() {
        let (vars, name) = (terms("process.env_vars"), terms("process.name"));
        let eql = "language = \"eql\"\ntype = \"eql\"";
        let any = rule("r", KQL, "event.category: process and process.env_vars: *", &vars);
        let exception = |condition: &str, expires: &str| {
            format!(
                "[[exception]]\nrule = \"r\"\ncondition = '{condition}'\nreason = \"x\"\nowner = \"x\"\nexpires = {expires}\n"
            )
        };
        let about = |expires| exception("not process.env_vars: LD_*", expires);
        let quiet = ["LD_LIBRARY_PATH", "LD_PRELOAD"];
        for (what, rule, exceptions, configured, is_noted) in [
            ("any, by a rule of Elastic's kind", any.clone(), String::new(), &[][..], true),
            ("any, by terms alone", rule("r", KQL, "process.name: x", &vars), String::new(), &[], true),
            ("any, with other terms", rule("r", KQL, "process.env_vars: *", &name), String::new(), &[], true),
            ("other terms", rule("r", KQL, "process.name: x", &name), String::new(), &[], false),
            ("one", rule("r", KQL, "process.env_vars: LD_PRELOAD=*", &vars), String::new(), &[], false),
            (
                "any, in EQL",
                rule("r", eql, r#"process where process.env_vars like "*""#, ""),
                String::new(),
                &[],
                true,
            ),
            (
                "one, in EQL",
                rule("r", eql, r#"process where process.env_vars : "HISTSIZE=*""#, ""),
                String::new(),
                &[],
                false,
            ),
            ("narrowed", any.clone(), String::new(), &quiet, false),
            ("excepted", any.clone(), about("\"never\""), &[], false),
            ("excepted once", any.clone(), about("2020-01-01"), &[], true),
            ("excepted otherwise", any.clone(), exception("process.name: y", "\"never\""), &[], true),
        ] {
            let found = found(&[rule], &exceptions, configured);
            assert_eq!(found.len(), usize::from(is_noted), "{what}: {found:?}");
        }
    }

    #[test]
    fn a_warning_has_the_rule_and_a_hint() {
        let any = rule("r", KQL, "process.env_vars: *", &terms("process.env_vars"));
        let eql = "language = \"eql\"\ntype = \"eql\"";
        let other = rule("o", eql, r#"process where process.env_vars : "HISTFILE=*""#, "");
        let note = found(std::slice::from_ref(&any), "", &[]);
        let start = "rule \"r\" (0.toml) matches any value of process.env_vars; 15 variables are collected, such as \
                     HISTSIZE and https_proxy: it may alert for each new value of one; set `sensor.env_vars`";
        assert!(note[0].starts_with(start), "{note:?}");
        let note = found(&[any, other], "", &["LD_PRELOAD", "LD_LIBRARY_PATH"]);
        let (start, end) = ("; 3 variables are collected, such as HISTFILE:", "; write an exception");
        assert!(note[0].contains(start) && note[0].ends_with(end), "{note:?}");
    }
}
