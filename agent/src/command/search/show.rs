//! The output of a search, as text or JSON.

use std::borrow::Cow;
use std::io::{BufWriter, Write};
use std::rc::Rc;

use anyhow::Result;
use lapwing_engine::{Match, Schema, SearchResults};

use super::Known;
use crate::command::{events, json_shown};
use crate::terminal::{Look, Screen, escape};

/// The JSON for a missing event.
const MISSING: &str = r#"{"missing":true}"#;

/// The results to print.
pub(super) struct Shown<'a> {
    pub(super) results: &'a SearchResults<Rc<Known>>,
    /// Whether each result is one event.
    pub(super) for_events: bool,
    pub(super) schema: &'a Schema,
}

impl Shown<'_> {
    /// Writes one object per line; documents are unchanged.
    pub(super) fn json(&self, out: impl Write) -> Result<()> {
        let mut out = BufWriter::new(out);
        for Match { keys, events } in &self.results.found {
            let documents: Vec<_> = events.iter().map(|known| self.document(known.as_deref())).collect();
            let line = if self.for_events {
                format!("{{\"event\":{}}}", documents[0])
            } else {
                format!(
                    "{{\"join_keys\":{},\"events\":[{}]}}",
                    serde_json::to_string(keys)?,
                    documents.join(",")
                )
            };
            writeln!(out, "{}", json_shown(line.as_bytes()))?;
        }
        Ok(out.flush()?)
    }

    fn document<'a>(&self, known: Option<&'a Known>) -> Cow<'a, str> {
        match known {
            None => MISSING.into(),
            Some(Known { document: Some(document), .. }) => (&**document).into(),
            Some(Known { event, .. }) => event.to_json(self.schema).to_string().into(),
        }
    }

    /// Writes one line per event. Events of a sequence or sample follow a line with its keys.
    pub(super) fn text(&self, out: impl Write) -> Result<()> {
        let (mut out, screen) = (BufWriter::new(out), Screen::stdout());
        for (index, Match { keys, events }) in self.results.found.iter().enumerate() {
            let indent = if self.for_events { "" } else { "  " };
            if !self.for_events {
                let keys: Vec<_> = keys.iter().map(|key| escape(key.as_deref().unwrap_or("null"))).collect();
                let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) };
                let parted = if index == 0 { "" } else { "\n" };
                writeln!(out, "{parted}{}", screen.paint(Look::Strong, &format!("{}{by}", index + 1)))?;
            }
            for known in events {
                let line = known.as_deref().map_or("(no such event)".into(), |known| self.line(known));
                writeln!(out, "{indent}{}", screen.fit(&line, indent.len()))?;
            }
        }
        Ok(out.flush()?)
    }

    /// An event as text: its details if the sensor has events of its kind, otherwise its document.
    fn line(&self, known: &Known) -> String {
        let normal = known.event.to_json(self.schema);
        if normal.pointer("/event/action").is_some() && normal.pointer("/process").is_some() {
            return events::line(&normal);
        }
        format!("{} {}", known.event.time(), escape(&self.document(Some(known))))
    }
}
