//! Queries and what becomes of them: `tests/queries/*.txt` hold a query, a line `---` and the typed query or the
//! diagnostics, block by block, parted by lines `===`. `UPDATE_EXPECT=1` writes what is found out now.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::fmt::Write as _;
use std::path::Path;

use lapwing_engine::detect::{Matcher, naive};
use lapwing_engine::lang::{Diagnostic, eql, kql};
use lapwing_engine::{Event, Schema, lang};

#[test]
fn eql_queries() {
    check("eql", |text| {
        let mut schema = Schema::new();
        shown(text, eql::parse(text, &mut schema), |query| query.display(&schema).to_string())
    });
}

#[test]
fn eql_diagnostics() {
    check("eql_faults", |text| {
        let mut schema = Schema::new();
        shown(text, eql::parse(text, &mut schema), |query| query.display(&schema).to_string())
    });
}

#[test]
fn kql_queries() {
    check("kql", |text| {
        let mut schema = Schema::new();
        shown(text, kql::parse(text, &mut schema), |query| query.display(&schema).to_string())
    });
}

#[test]
fn eql_lints() {
    check("lints", |text| shown(text, eql::parse(text, &mut Schema::new()), |_| "it can run".to_owned()));
}

#[test]
fn kql_lints() {
    check("kql_lints", |text| shown(text, kql::parse(text, &mut Schema::new()), |_| "it can run".to_owned()));
}

#[test]
fn hostile_queries_are_refused_by_name() {
    let deep = "(".repeat(100_000);
    let many = format!("process where process.pid in ({})", vec!["1"; 100_000].join(","));
    let long = format!("process where process.name == \"{}\"", "x".repeat(10 << 20));
    let chain = format!("process where process.pid == 1{}", "+1".repeat(100_000));
    let stages = format!("sequence {}", "[process where true]".repeat(1000));
    let nots = format!("process where {} true", "not ".repeat(100_000));
    for (query, id) in [
        (format!("process where {deep}"), "E0106"),
        (many, "E0107"),
        (long, "E0107"),
        (chain, "E0106"),
        (stages, "E0107"),
        (nots, "E0106"),
        (format!("process where {}", "child of [process where ".repeat(10_000)), "E0106"),
        (format!("process where process.name regex \"{}\"", "(".repeat(900)), "E0109"),
        ("process where process.name regex \"(((a{1000}){1000}){1000})*\"".to_owned(), "E0110"),
        (format!("process where process.name regex \"{}\"", "a".repeat(100_000)), "E0110"),
        (format!("process where {}", "= and ".repeat(100_000)), "E0104"),
        (format!("process where {}", "] ".repeat(100_000)), "E0104"),
    ] {
        let found = eql::parse(&query, &mut Schema::new()).unwrap_err();
        assert_eq!(found[0].code.id, id, "{}…", &query[..60]);
    }
    for query in [deep, "a:".repeat(100_000), "not ".repeat(100_000), "\\".repeat(1001), "\"\\u12".to_owned()]
    {
        assert!(kql::parse(&query, &mut Schema::new()).is_err());
    }
}

#[test]
fn long_lists_of_conditions_are_not_nested() {
    let query = format!("process where {}", vec!["process.pid == 1"; 20_000].join(" or "));
    assert!(eql::parse(&query, &mut Schema::new()).is_ok());
    let query = vec!["process.pid: 1"; 20_000].join(" and ");
    assert!(kql::parse(&query, &mut Schema::new()).is_ok());
}

#[test]
fn conditions_hold_for_the_events_they_should() {
    for file in ["conditions.txt", "opened_names.txt"] {
        conditions_hold(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file));
    }
}

fn conditions_hold(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let mut blocks = text.split("\n\n").map(str::trim_end);
    let (head, events) = (blocks.next().unwrap(), blocks.next().unwrap());
    let mut now = format!("{head}\n\n{events}\n");
    for block in blocks.filter(|block| !block.is_empty()) {
        let query: Vec<_> = block.lines().take_while(|line| !line.starts_with('=')).collect();
        let query = query.join("\n");
        write!(now, "\n{query}\n= {}\n", matching(&query, events)).unwrap();
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(file, &now).unwrap();
    }
    assert!(now == text, "{} holds something else; UPDATE_EXPECT=1 writes it", file.display());
}

/// The names of the events that a query matches, which the compiled matcher and the reference must agree about.
fn matching(query: &str, events: &str) -> String {
    let mut schema = Schema::new();
    let found = match query.strip_prefix("kql ") {
        Some(query) => kql::parse(query, &mut schema).map(|(query, _)| query),
        None => eql::parse(query, &mut schema).map(|(query, _)| query.events().next().unwrap().clone()),
    };
    let query = match found {
        Ok(query) => query,
        Err(faults) => return faults.iter().map(|fault| fault.code.id).collect::<Vec<_>>().join(" "),
    };
    let mut matcher = Matcher::new([&query]);
    let mut names = Vec::new();
    for line in events.lines() {
        let (name, json) = line.split_once(' ').unwrap();
        let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
        json["@timestamp"] = 0.into();
        let event = Event::from_json(&schema, &json).unwrap();
        let matches = naive::matches(&query, &event);
        assert_eq!(!matcher.matching(&event).is_empty(), matches, "{query:?} and {name}");
        names.extend(matches.then_some(name));
    }
    names.join(" ")
}

#[test]
fn what_is_long_and_right_is_read() {
    let list = |entry: &str| (0..50_000).map(|n| entry.replace('#', &n.to_string())).collect::<Vec<_>>();
    let queries = [
        format!("process where process.pid in ({})", list("#").join(",")),
        format!(
            "process where process.name in ({}) and not process.name in (\"9\")",
            list("\"#\"").join(",")
        ),
        format!("process where process.args like~ ({})", list("\"*#\"").join(",")),
    ];
    for query in &queries {
        assert!(eql::parse(query, &mut Schema::new()).is_ok(), "{}…", &query[..60]);
    }
    let query = format!("process.name: ({}) and not process.name: 9", list("#").join(" or "));
    assert!(kql::parse(&query, &mut Schema::new()).is_ok());
    let stages = format!("sequence with maxspan=1m {}", "[process where true]".repeat(256));
    assert!(eql::parse(&stages, &mut Schema::new()).is_ok());
}

fn check(name: &str, run: impl Fn(&str) -> String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/queries/{name}.txt"));
    let text = std::fs::read_to_string(&file).unwrap();
    let mut now = String::new();
    for block in text.split("===\n") {
        let query = block.split("---\n").next().unwrap_or_default();
        let separator = if now.is_empty() { "" } else { "===\n" };
        write!(now, "{separator}{query}---\n{}\n", run(query.trim_end())).unwrap();
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    assert!(now == text, "{} holds something else; UPDATE_EXPECT=1 writes it:\n{now}", file.display());
}

type Found<T> = Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>;

fn shown<T>(text: &str, found: Found<T>, display: impl Fn(&T) -> String) -> String {
    let (query, diagnostics) = match &found {
        Ok((query, warnings)) => (Some(display(query)), warnings),
        Err(faults) => (None, faults),
    };
    let diagnostics = diagnostics.iter().map(|diagnostic| {
        let Diagnostic { code, message, span, label, help } = diagnostic;
        let at = text.get(span.start..span.end).unwrap_or("(no place in the query)");
        let at = at.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut line = format!("{} at `{at}`: {message}", code.id);
        [label.as_str(), help.as_deref().unwrap_or_default()]
            .iter()
            .filter(|extra| !extra.is_empty())
            .for_each(|extra| write!(line, "\n  {extra}").unwrap());
        line
    });
    query.into_iter().chain(diagnostics).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_code_is_explained() {
    for code in lang::diagnostic::code::ALL {
        assert!(!code.title.is_empty() && code.explanation.ends_with('.'), "{code:?}");
    }
}
