//! Rules and what becomes of them: `tests/rules/*.txt` hold blocks, parted by lines `===`, of a title, the lines of a
//! rule, a line `---`, events and a line `--- found` with what they gave, or with what is wrong with the rule. Before
//! the events may stand `--- job`, a file of one, `--- exceptions`, a file of them, and
//! `--- indicators`, a document a line.
//!
//! An event is a line: its second, and `field=value` parted by blanks; `a+b` are two values. `30 x 60: EVENT` are that
//! many of it, so many seconds apart. `end` ends all time spans.
//! `UPDATE_EXPECT=1` writes what is found now.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::fmt::Write as _;
use std::path::Path;

use lapwing_engine::detect::{Enrichment, Indicators};
use lapwing_engine::lang::Diagnostic;
use lapwing_engine::{
    Alert, Cause, Engine, Event, Exceptions, HeldBack, Loaded, Options, Output, Schema, Timestamp, field,
};
use serde_json::{Value as Json, json};

#[test]
fn thresholds() {
    check("threshold");
}

#[test]
fn suppression() {
    check("suppression");
}

#[test]
fn machine_learning() {
    check("machine_learning");
}

#[test]
fn max_signals() {
    check("max_signals");
}

#[test]
fn threat_match() {
    check("threat_match");
}

#[test]
fn overrides_and_filters() {
    check("overrides");
}

#[test]
fn exceptions() {
    check("exceptions");
}

#[test]
fn faults() {
    check("faults");
}

fn check(name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/rules/{name}.txt"));
    let text = std::fs::read_to_string(&file).unwrap();
    let blocks = text.split("\n===\n").map(|block| {
        let given = block.split("--- found").next().unwrap_or_default().trim_end();
        format!("{given}\n--- found\n{}", found(given).trim_end())
    });
    let now = blocks.collect::<Vec<_>>().join("\n===\n") + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    assert!(now == text, "{} holds something else; UPDATE_EXPECT=1 writes it:\n{now}", file.display());
}

/// What the block's rule does with the block's events.
fn found(block: &str) -> String {
    let mut sections = block.split("\n---");
    let rule = sections.next().unwrap().split_once('\n').unwrap_or_default().1;
    let mut section = |name: &str| {
        let mut rest = sections.clone();
        let text = rest.next().and_then(|text| text.strip_prefix(name)?.strip_prefix('\n'));
        if text.is_some() {
            sections = rest;
        }
        text.unwrap_or_default()
    };
    let file =
        format!("[rule]\nrule_id = 'id'\nname = 'name'\ndescription = 'text'\nseverity = 'low'\n{rule}\n");
    let mut schema = Schema::new();
    let files = [("rule.toml", file.as_bytes()), ("job.toml", section(" job").as_bytes())];
    let files = files.into_iter().filter(|(_, bytes)| !bytes.is_empty());
    let loaded = Loaded::read(files, &mut schema);
    let mut exceptions = Exceptions::read([("except.toml", section(" exceptions").as_bytes())], &mut schema);
    exceptions.check(&loaded.rules, Timestamp::from_millis(1_000_000));
    let mut indicators = Indicators::default();
    for (line, text) in section(" indicators").lines().enumerate() {
        indicators.push(&serde_json::from_str(text).unwrap(), format!("line {}", line + 1));
    }
    let mut shown = String::new();
    for report in loaded.reports.iter().chain(&exceptions.reports) {
        report.diagnostics.iter().for_each(|diagnostic| fault(diagnostic, &report.text, &mut shown));
    }
    let engine = Engine::new(schema.into(), &loaded.rules, Options::default());
    let mut engine = engine.with_exceptions(&exceptions.list).with_indicators(&indicators.into());
    run(&mut engine, section(""), &mut shown);
    for (exception, count) in engine.exceptions() {
        writeln!(shown, "exception of line {}: {count}", exception.line).unwrap();
    }
    shown
}

fn run(engine: &mut Engine, events: &str, shown: &mut String) {
    let mut output = Output::default();
    for line in events.lines().filter(|line| !line.is_empty()) {
        if line == "end" {
            engine.finish(&mut output);
        }
        for event in events_of(line).filter(|_| line != "end") {
            let event = Event::from_json(engine.schema(), &event).unwrap();
            let time = event.time();
            engine.push(event, &mut output);
            engine.advance(time, &mut output);
        }
        for alert in output.alerts.drain(..) {
            writeln!(shown, "{}", shown_alert(&alert, engine.schema())).unwrap();
        }
    }
}

fn fault(Diagnostic { code, message, span, help, .. }: &Diagnostic, text: &str, shown: &mut String) {
    let place = text.get(span.start..span.end).unwrap_or("(no place in the file)");
    let place = place.lines().next().unwrap_or_default();
    writeln!(shown, "{} at `{place}`: {message}", code.id).unwrap();
    help.iter().for_each(|help| writeln!(shown, "  {help}").unwrap());
}

fn events_of(line: &str) -> impl Iterator<Item = Json> {
    let (times, line) = line.split_once(": ").unwrap_or(("1 x 0", line));
    let (count, step) = times.split_once(" x ").unwrap();
    let (count, step): (i64, i64) = (count.parse().unwrap(), step.parse().unwrap());
    (0..count).map(move |time| event(line, time * step))
}

fn event(line: &str, later: i64) -> Json {
    let mut words = line.split(' ');
    let second = words.next().unwrap().parse().unwrap_or(0) + later;
    let mut event = json!({"@timestamp": second * 1000, "event.category": "process"});
    for (field, value) in words.filter_map(|word| word.split_once('=')) {
        let values: Vec<Json> = value
            .split('+')
            .map(|value| serde_json::from_str(value).unwrap_or_else(|_| value.to_owned().into()))
            .collect();
        event[field] = if values.len() == 1 { values[0].clone() } else { values.into() };
    }
    event
}

fn shown_alert(alert: &Alert, schema: &Schema) -> String {
    let second = |time: Timestamp| time.as_millis() / 1000;
    let head = format!("{} {} {} {}", second(alert.time), alert.name, alert.severity, alert.risk_score);
    match &alert.cause {
        Cause::Suppressed(suppressed) => {
            let (start, end) = (second(suppressed.start), second(suppressed.end));
            let mut line = format!("{head} suppressed {} from {start} to {end}", suppressed.count);
            for (field, value) in suppressed.group.iter().flatten() {
                write!(line, " {}={}", schema.name(*field), value.as_deref().unwrap_or("(missing)")).unwrap();
            }
            for HeldBack { act, count } in &suppressed.held_back {
                let texts = [&act.user, &act.group, &act.executable, &act.destination];
                let texts: Vec<_> = texts.into_iter().flatten().map(|text| text.as_str()).collect();
                write!(line, ", {count} of {}", texts.join(" ")).unwrap();
            }
            if suppressed.others > 0 {
                write!(line, ", {} of others", suppressed.others).unwrap();
            }
            line
        }
        Cause::Detection(finding) => {
            let mut line = head;
            for event in finding.events.iter().flatten() {
                write!(line, " {}", event.text(field!("event.id")).unwrap_or("event")).unwrap();
            }
            if let Some(anomaly) = &finding.anomaly {
                write!(line, " {} score {:.0}", anomaly.job_id, anomaly.record_score).unwrap();
                anomaly.by_value.iter().for_each(|value| write!(line, " {value}").unwrap());
                let size = anomaly.size.iter();
                size.for_each(|size| write!(line, " {} for {}", size.actual, size.typical).unwrap());
            }
            for Enrichment { indicator, atomic, field, id } in &finding.enrichments {
                write!(line, " {field}={atomic} by {id} {indicator}").unwrap();
            }
            if let Some(result) = &finding.threshold {
                write!(line, " count {} from {}", result.count, second(result.from)).unwrap();
                for (field, value) in &result.terms {
                    write!(line, " {}={}", schema.name(*field), value.to_text()).unwrap();
                }
                if let Some((field, count)) = result.cardinality {
                    write!(line, " {count} of {}", schema.name(field)).unwrap();
                }
            }
            line
        }
    }
}
