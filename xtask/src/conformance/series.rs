//! Sequences drawn as series of letters: a line for each stage, and in it the events that match that stage.
//!
//! ```text
//! nameOfTheCase
//! A1     A4
//!    B2
//!       k|C3        the third event in order, for stage C, with the key k
//! ;
//! A1 B2 k|C3        the sequences that must be found, a line each
//! ;
//! ```
//!
//! The number of an event is its place in the order of all; its letter is a part of its name alone. An event matches the
//! stages in whose lines it stands. Where events have keys, they join them; in what must be found, the first key of a line
//! holds for all of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::Case;
use super::agent::{Agent, Found};

/// One case.
#[derive(Debug, Default, PartialEq)]
struct Spec {
    name: String,
    stages: Vec<Vec<Event>>,
    expected: Vec<Vec<Event>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Event {
    key: Option<String>,
    letter: char,
    number: i64,
}

/// Runs the cases of a file.
pub(super) fn run(agent: &Agent, path: &Path) -> Result<Vec<Case>> {
    let specs = read(&fs::read_to_string(path)?)?;
    specs.iter().map(|spec| spec.run(agent)).collect()
}

fn read(text: &str) -> Result<Vec<Spec>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let mut specs = Vec::new();
    while let Some(name) = lines.next() {
        let mut block = || -> Result<Vec<Vec<Event>>> {
            let mut rows = Vec::new();
            loop {
                match lines.next().with_context(|| format!("{name} has no end"))? {
                    ";" => return Ok(rows),
                    line => rows.push(line.split_whitespace().map(Event::read).collect::<Result<_>>()?),
                }
            }
        };
        specs.push(Spec { name: name.to_owned(), stages: block()?, expected: block()? });
    }
    Ok(specs)
}

impl Event {
    /// Reads `A1` or `key|A1`.
    fn read(text: &str) -> Result<Self> {
        let (key, event) =
            text.split_once('|').map_or((None, text), |(key, event)| (Some(key.to_owned()), event));
        let mut letters = event.chars();
        match (letters.next(), letters.as_str().parse()) {
            (Some(letter), Ok(number)) if letter.is_ascii_uppercase() => Ok(Self { key, letter, number }),
            _ => bail!("`{text}` is no event: a letter and a number"),
        }
    }

    fn name(&self) -> String {
        format!("{}{}", self.letter, self.number)
    }
}

impl Spec {
    fn run(&self, agent: &Agent) -> Result<Case> {
        let file = agent.write("series.ndjson", &self.events())?;
        let options = ["--schema", "infer", "--size", "1000"];
        let found = agent.search(&self.query(), &file, &options, "id");
        Ok(Case::compare(&self.name, &self.expected(), &found))
    }

    fn is_keyed(&self) -> bool {
        self.stages.iter().flatten().any(|event| event.key.is_some())
    }

    fn query(&self) -> String {
        let stages = 1..=self.stages.len();
        let stages: String = stages.map(|stage| format!(" [stage{stage} where true]")).collect();
        format!("sequence{}{stages}", if self.is_keyed() { " by key" } else { "" })
    }

    /// The events as documents, a line each; their categories are their stages.
    fn events(&self) -> String {
        let mut events = BTreeMap::<i64, (&Event, Vec<String>)>::new();
        for (index, stage) in self.stages.iter().enumerate() {
            for event in stage {
                let (_, stages) = events.entry(event.number).or_insert_with(|| (event, Vec::new()));
                stages.push(format!("stage{}", index + 1));
            }
        }
        // The last comes first, for a search has to put them in order.
        let lines = events.into_iter().rev().map(|(number, (event, stages))| {
            let mut document = json!({"@timestamp": number, "event.category": stages, "id": event.name()});
            if let Some(key) = &event.key {
                document["key"] = key.as_str().into();
            }
            format!("{document}\n")
        });
        lines.collect()
    }

    fn expected(&self) -> Found {
        let mut expected = Found::default();
        for row in &self.expected {
            expected.events.extend(row.iter().map(|event| Some(event.name())));
            expected.keys.extend(row.iter().find_map(|event| event.key.clone()));
            expected.ends.push(expected.events.len());
        }
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_read() {
        let text = "// Text.\n\nfirst\nA1    A3\n  B2\n;\nA1 B2\n;\n\nsecond\nx|A1 y|A2\n  x|C3 y|A2\n;\nx|A1 C3\n;\n";
        let specs = read(text).unwrap();
        assert_eq!(specs.len(), 2);
        assert_eq!(specs[0].query(), "sequence [stage1 where true] [stage2 where true]");
        assert_eq!(specs[1].query(), "sequence by key [stage1 where true] [stage2 where true]");
        let events = specs[1].events();
        let events: Vec<_> = events.lines().collect();
        let [first, both, ..] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(*first, r#"{"@timestamp":3,"event.category":["stage2"],"id":"C3","key":"x"}"#);
        assert_eq!(*both, r#"{"@timestamp":2,"event.category":["stage1","stage2"],"id":"A2","key":"y"}"#);
        let expected = specs[1].expected();
        assert_eq!(expected.events, [Some("A1".into()), Some("C3".into())]);
        assert_eq!((expected.keys, expected.ends), (vec!["x".to_owned()], vec![2]));
        assert_eq!(specs[0].expected().keys, [""; 0]);
    }

    #[test]
    fn what_is_no_drawing_is_refused() {
        for text in ["name", "name\nA1\n;", "name\nA\n;\n;", "name\n1\n;\n;", "name\na1\n;\n;"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
