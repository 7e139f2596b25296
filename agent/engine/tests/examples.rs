//! Every kind of fault has an example that raises it and a cure that does not.

use lapwing_engine::lang::diagnostic::code;
use lapwing_engine::lang::example::{EXAMPLES, Example, Written, example};
use lapwing_engine::lang::{Diagnostic, eql, kql};
use lapwing_engine::{Loaded, Schema};

/// Codes that nothing raises any more: they are kept because codes are never used again.
const RETIRED: &[&str] = &["E0210"];

#[test]
fn every_code_has_an_example() {
    for code in code::ALL {
        let is_there = example(code).is_some() || RETIRED.contains(&code.id);
        assert!(is_there, "write an example of {code:?} in lang/example.rs");
    }
    assert!(EXAMPLES.is_sorted_by_key(|example| example.id));
}

#[test]
fn examples_raise_their_codes_and_cures_do_not() {
    for Example { id, written, wrong, right } in EXAMPLES {
        let raises = |text: &str| found(*written, text).iter().any(|found| found.code.id == *id);
        if *written != Written::Words {
            assert!(raises(wrong), "{id} is not raised by {wrong}: {:?}", found(*written, wrong));
            assert!(found(*written, right).is_empty(), "{id}: {right}: {:?}", found(*written, right));
        }
    }
}

fn found(written: Written, text: &str) -> Vec<Diagnostic> {
    let mut schema = Schema::new();
    match written {
        Written::Eql => eql::parse(text, &mut schema).map_or_else(|found| found, |(_, found)| found),
        Written::Kql => kql::parse(text, &mut schema).map_or_else(|found| found, |(_, found)| found),
        Written::Rule => {
            let has = |key: &str| text.lines().any(|line| line.starts_with(&format!("{key} = ")));
            let needed = [
                ("rule_id", "a"),
                ("name", "n"),
                ("description", "d"),
                ("severity", "low"),
                ("type", "query"),
                ("query", "process.name: nc"),
            ];
            let needed =
                needed.iter().filter(|(key, _)| !has(key)).map(|(key, value)| format!("{key} = '{value}'\n"));
            in_file(&format!("[rule]\n{}{text}", needed.collect::<String>()))
        }
        Written::File => in_file(text),
        Written::Words => Vec::new(),
    }
}

fn in_file(text: &str) -> Vec<Diagnostic> {
    let loaded = Loaded::read([("rule.toml", text.as_bytes())], &mut Schema::new());
    loaded.reports.into_iter().flat_map(|report| report.diagnostics).collect()
}
