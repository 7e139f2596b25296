//! Input that is written to do harm: it is read, or refused by a limit that has a name, in a time that grows with its size
//! and no faster.

use lapwing_engine::lang::regex::{Regex, RegexError};
use lapwing_engine::lang::{DIAGNOSTICS_MAX, Diagnostic, Level, eql, kql};
use lapwing_engine::{Engine, Event, EventError, Loaded, Options, Output, Schema, field};
use serde_json::{Value as Json, json};

/// A query's first fault.
fn fault<T>(found: Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>) -> Option<&'static str> {
    found.err().map(|faults| faults[0].code.id)
}

#[test]
fn queries_without_measure_are_read_or_refused_by_a_limit() {
    let any = |condition: String| format!("any where {condition}");
    let list = |entries: usize| (0..entries).map(|n| format!("\"n{n}\"")).collect::<Vec<_>>().join(", ");
    let not = |depth: usize| format!("{}true", "not ".repeat(depth));
    let calls =
        |depth: usize| format!("{}process.name{} == \"a\"", "string(".repeat(depth), ")".repeat(depth));
    let stars = "*a".repeat(100_000);
    #[rustfmt::skip]
    let rows: &[(String, Option<&str>)] = &[
        (any(format!("process.name in ({})", list(50_000))), None),
        (any(format!("process.name : ({})", list(50_000))), None),
        (any(format!("process.name : \"{stars}\"")), None),
        (any(format!("process.name in ({})", list(70_000))), Some("E0107")),
        (any(format!("process.name == \"{}\"", "x".repeat(10 << 20))), Some("E0107")),
        (any(format!("{}true{}", "(".repeat(100_000), ")".repeat(100_000))), Some("E0106")),
        (any(format!("length(concat({}1)) > 0", "process.name, ".repeat(60_000))), Some("E0107")),
        (any(not(100_000)), Some("E0106")),
        (any(not(127)), None),
        (any(calls(100_000)), Some("E0106")),
        (any(format!("process.pid == {}1", "-".repeat(100_000))), Some("E0106")),
        (any(format!("process.pid == {}", "9".repeat(100_000))), Some("E0105")),
        (format!("sequence {}", "[any where true]".repeat(1000)), Some("E0107")),
        ("sequence [any where true] with runs=1000000000 [any where true]".to_owned(), Some("E0209")),
        (format!("sequence [any where {} true] with runs=200 [any where true]", "process.pid == 1 or ".repeat(10_000)), Some("E0107")),
        ("sequence [any where true] with runs=255 [any where true]".to_owned(), None),
        ("sequence with maxspan=9223372036854775807d [any where true] [any where true]".to_owned(), Some("E0207")),
        (format!("any where {}", "/*".repeat(400_000)), Some("E0102")),
        ("any where \"\u{202e}\0\"\u{feff}".to_owned(), Some("E0101")),
    ];
    for (query, expected) in rows {
        let shown: String = query.chars().take(60).collect();
        assert_eq!(fault(eql::parse(query, &mut Schema::new())), *expected, "{shown}…");
    }
}

#[test]
fn reported_faults_are_limited() {
    let many = |condition: &str| format!("any where {}", vec![condition; 20_000].join(" or "));
    for query in
        [many("proces.parent.nam == 1"), many("startWith(process.name, \"a\")"), many("process.pid == \"a\"")]
    {
        let faults = eql::parse(&query, &mut Schema::new()).unwrap_err();
        assert_eq!(faults.len(), DIAGNOSTICS_MAX);
    }
    // Errors are not lost among warnings.
    let warned =
        vec!["(process.pid == 1 and process.pid != 2 or user.id == 1 and user.id != 2)"; 30].join(" or ");
    let faults =
        eql::parse(&format!("any where {warned} or proces.pid == 1"), &mut Schema::new()).unwrap_err();
    assert!(faults.iter().any(|fault| fault.level() == Level::Error), "{faults:?}");
    let keys: String = (0..20_000).map(|n| format!("misspelt_{n} = 1\n")).collect();
    let file = format!("[rule]\n{keys}");
    let loaded = Loaded::read([("a.toml", file.as_bytes())], &mut Schema::new());
    assert_eq!((loaded.refused(), loaded.reports[0].diagnostics.len()), (1, DIAGNOSTICS_MAX));
}

#[test]
fn the_same_of_kql() {
    let list = |entries: usize| vec!["a*"; entries].join(" or ");
    #[rustfmt::skip]
    let rows: &[(String, Option<&str>)] = &[
        (format!("process.name: ({})", list(50_000)), None),
        (vec!["process.name: a"; 50_000].join(" or "), None),
        (format!("process.name: {}a{}", "(".repeat(100_000), ")".repeat(100_000)), Some("E0106")),
        (format!("{}process.name: a{}", "not (".repeat(100_000), ")".repeat(100_000)), Some("E0106")),
        (format!("process.name: {}", "x".repeat(10 << 20)), Some("E0107")),
        (format!("process.name: \"{}", "\\".repeat(100_000)), Some("E0102")),
    ];
    for (query, expected) in rows {
        let shown: String = query.chars().take(60).collect();
        assert_eq!(fault(kql::parse(query, &mut Schema::new())), *expected, "{shown}…");
    }
}

#[test]
fn no_regular_expression_runs_away() {
    let text = format!("{}!", "a".repeat(1 << 17));
    for pattern in [
        "(a*)*b",
        "(a|a)*b",
        "(a|aa)+b",
        "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)b",
        "@a@a@a@a@a@b",
        "(a?){30}a{30}b",
    ] {
        let regex = Regex::new(pattern, false).unwrap();
        assert!(!regex.is_match(&text), "{pattern}");
    }
    let intersected = Regex::new("(a*&~(@b@))!", false).unwrap();
    assert!(intersected.is_match(&text));
    for pattern in [
        "((a{1000}){1000}){1000}",
        "x(~((a|b)*a(a|b){20}))y",
        "x((@a.{9}@)&(@b.{9}@)&(@c.{9}@))y",
        &"(".repeat(500),
        &"a".repeat(1001),
    ] {
        let shown: String = pattern.chars().take(40).collect();
        assert!(
            matches!(Regex::new(pattern, false), Err(RegexError::TooLarge(_) | RegexError::Syntax { .. })),
            "{shown}"
        );
    }
    // Many that each pass are too much together.
    let query = format!("any where process.name regex ({})", vec!["\"(a|b)*a.{900}\""; 1000].join(", "));
    assert_eq!(fault(eql::parse(&query, &mut Schema::new())), Some("E0110"));
}

#[test]
fn a_list_of_fifty_thousand_entries_is_run() {
    let names: Vec<_> = (0..50_000).map(|n| format!("\"N{n}*\"")).collect();
    let rule = format!(
        "[rule]\nrule_id = 'i'\nname = 'n'\ndescription = 'd'\nseverity = 'low'\ntype = 'eql'\nquery = 'any where process.name : ({})'",
        names.join(", ")
    );
    let mut schema = Schema::new();
    let loaded = Loaded::read([("rule.toml", rule.as_bytes())], &mut schema);
    let mut engine = Engine::new(schema.into(), &loaded.rules, Options::default());
    let mut output = Output::default();
    for name in ["n49999x", "n5", "m1", &"n".repeat(1 << 20)] {
        let document = json!({"@timestamp": 0, "process.name": name});
        engine.push(Event::from_json(engine.schema(), &document).unwrap(), &mut output);
    }
    assert_eq!(output.alerts.len(), 2);
}

#[test]
fn files_that_are_no_rules_are_refused_alone() {
    let rule = |id: &str, more: &str| {
        format!(
            "[rule]\nrule_id = '{id}'\nname = 'n'\ndescription = 'd'\nseverity = 'low'\ntype = 'query'\nquery = 'process.name: a'\n{more}"
        )
    };
    let deep = format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let tables = format!("[{}a]\n", "a.".repeat(100_000));
    let dotted = rule("dotted", &format!("{}a = 1", "a.".repeat(20_000)));
    let (good, late, twice) = (rule("good", ""), rule("late", ""), rule("good", ""));
    let long = rule("long", &format!("note = '{}'", "x".repeat(2 << 20)));
    let numbers = rule("numbers", "risk_score = 99999999999999999999");
    let files: &[(&str, &[u8], Option<&str>)] = &[
        ("a_good.toml", good.as_bytes(), None),
        ("b_empty.toml", b"", Some("E0302")),
        ("c_zeros.toml", &[0; 4096], Some("E0301")),
        ("d_utf16.toml", b"\xff\xfe[\0r\0u\0l\0e\0]\0", Some("E0309")),
        ("e_deep.toml", deep.as_bytes(), Some("E0301")),
        ("f_tables.toml", tables.as_bytes(), Some("E0301")),
        ("g_dotted.toml", dotted.as_bytes(), Some("E0301")),
        ("h_twice.toml", twice.as_bytes(), Some("E0307")),
        ("i_long.toml", long.as_bytes(), Some("E0309")),
        ("j_numbers.toml", numbers.as_bytes(), Some("E0303")),
        ("z_late.toml", late.as_bytes(), None),
    ];
    let loaded = Loaded::read(files.iter().map(|(name, bytes, _)| (*name, *bytes)), &mut Schema::new());
    let ids: Vec<_> = loaded.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["good", "late"]);
    for (name, _, expected) in files {
        let report = loaded.reports.iter().find(|report| &*report.file == *name);
        let found = report.map(|report| report.diagnostics[0].code.id);
        assert_eq!(found, *expected, "{name}: {:?}", report.map(|report| &report.diagnostics[0]));
    }
}

#[test]
fn documents_without_measure_are_read_or_refused() {
    let schema = Schema::new();
    let read = |text: &str| {
        let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Event::from_json(&schema, &json).map_err(|error| error.to_string())
    };
    let event = |members: &str| format!("{{\"@timestamp\":0,{members}}}");
    let deep =
        |start: &str, end: &str, depth: usize| format!("{}1{}", start.repeat(depth), end.repeat(depth));
    for (text, expected) in [
        (event(&format!("\"a\":{}", deep("{\"a\":", "}", 100_000))), "recursion limit"),
        (event(&format!("\"a\":{}", deep("[", "]", 100_000))), "recursion limit"),
        (event(&format!("\"a\":{}", deep("[", "]", 100))), "nested more than"),
        (event("\"a\":1e999"), "number out of range"),
        (event("\"a\":\"\\ud800\""), "unexpected end of hex escape"),
        ("[]".to_owned(), &EventError::NotAnObject.to_string()),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let many = vec!["\"x\""; 1_000_000].join(",");
    let large = read(&event(&format!("\"process\":{{\"args\":[{many}]}}"))).unwrap();
    assert_eq!(large.values(field!("process.args")).count(), 1_000_000);
    let fields = (0..100_000).map(|n| format!("\"f{n}\":{n}")).collect::<Vec<_>>().join(",");
    assert!(read(&event(&fields)).unwrap().to_json(&schema)["f99999"].is_number());
    // Numbers that no field of their type holds are kept and never compared; of two of a name the last one counts.
    let odd = read(&event("\"process.pid\":1e300,\"event.risk_score\":-0.0,\"process.pid\":18446744073709551616,\"process.name\":\"a\",\"process.name\":\"b\"")).unwrap();
    assert_eq!(odd.text(field!("process.name")), Some("b"));
}
