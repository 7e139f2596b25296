//! The events of this host.

use anyhow::Result;
use lapwing_engine::Schema;
use serde_json::{Value as Json, json};

use super::super::{print, print_json};
use crate::coverage;

/// Lists every kind of event of every source, with the fields that it may have.
pub(super) fn list(json: bool) -> Result<()> {
    let schema = Schema::new();
    for source in coverage::sources(None) {
        for kind in &source.kinds {
            let fields: Vec<_> = kind.fields().map(|id| schema.name(id)).collect();
            if json {
                let kind: Json = json!({"source": source.name, "kind": kind.name, "fields": fields});
                print_json(&kind.to_string())?;
            } else {
                print(&format!("{}: {}", source.name, kind.name))?;
                fields.iter().try_for_each(|field| print(&format!("  {field}")))?;
            }
        }
    }
    Ok(())
}
