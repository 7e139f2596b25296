//! Machine learning jobs: what a rule of type `machine_learning` names, in a TOML file of ours with a `[job]` table.

use std::time::Duration;

use super::document::{DocumentTable, Placed, place_in_string};
use super::keys::check_job;
use crate::event::{FieldId, Schema};
use crate::lang::diagnostic::{Diagnostic, Level, code};
use crate::lang::{EventQuery, kql};

/// Partitions are learned for this many buckets before anything in them is rare, where the job does not say.
const BUCKETS_LEARNED_MIN: i64 = 20;

/// What a job looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobFunction {
    /// `rare`: values of a field that turn up in few time spans.
    Rare {
        /// `by_field_name`
        by: FieldId,
    },
    /// `high_distinct_count`: time spans in which a field takes unusually many different values.
    HighDistinctCount {
        /// `field_name`
        field: FieldId,
    },
}

/// A job that finds what is unusual.
#[derive(Clone, Debug)]
pub struct Job {
    /// The id by which rules name it.
    pub id: String,
    /// What it finds.
    pub description: String,
    /// Elasticsearch indices it reads.
    pub index: Vec<String>,
    /// Which events it learns from.
    pub query: EventQuery,
    /// What it looks for.
    pub function: JobFunction,
    /// The field whose values are scored separately.
    pub partition: Option<FieldId>,
    /// The length of the spans in which a value is there or not.
    pub bucket_span: Duration,
    /// Buckets that must have been learned before anything is an anomaly.
    pub buckets_learned_min: u64,
}

impl Job {
    /// Every field that it scores by.
    pub fn fields(&self) -> impl Iterator<Item = FieldId> {
        let (JobFunction::Rare { by: field } | JobFunction::HighDistinctCount { field }) = self.function;
        self.partition.into_iter().chain([field])
    }

    pub(super) fn read(
        file: &str,
        table: &DocumentTable<'_>,
        schema: &mut Schema,
        faults: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        check_job(table, faults);
        let id = table.required("id", faults)?;
        let description = table.required("description", faults).map(|text| text.value.to_owned());
        let function = table.required("function", faults)?;
        let function = read_function(table, function, schema, faults);
        let partition =
            table.text("partition_field_name", faults).and_then(|name| field(name, schema, faults));
        let query = table.required("query", faults);
        let query = query.and_then(|query| {
            let found = kql::parse(query.value, schema);
            let (query_read, found) =
                found.map_or_else(|found| (None, found), |(query, found)| (Some(query), found));
            let place = |at| place_in_string(file, query.span, at);
            faults.extend(found.into_iter().map(|mut fault| {
                fault.span = (place(fault.span.start)..place(fault.span.end)).into();
                fault
            }));
            query_read
        });
        let bucket_span = table.duration("bucket_span", "", faults).unwrap_or(Duration::from_secs(900));
        let learned =
            table.integer("buckets_learned_min", 0, 1_000_000, faults).unwrap_or(BUCKETS_LEARNED_MIN);
        let index = table.strings("index", faults);
        if faults.iter().any(|fault| fault.level() == Level::Error) {
            return None;
        }
        Some(Self {
            id: id.value.to_owned(),
            description: description?,
            index,
            query: query?,
            function: function?,
            partition,
            bucket_span,
            buckets_learned_min: learned.unsigned_abs(),
        })
    }
}

/// Reads the function and the field that it takes.
fn read_function(
    table: &DocumentTable<'_>,
    function: Placed<&str>,
    schema: &Schema,
    faults: &mut Vec<Diagnostic>,
) -> Option<JobFunction> {
    let mut named = |key, other| {
        if let Some(other) = table.text(other, faults) {
            let message = format!("the function `{}` takes `{key}` alone", function.value);
            faults.push(Diagnostic::new(code::BAD_VALUE, other.span, message));
        }
        table.required(key, faults).and_then(|name| field(name, schema, faults))
    };
    match function.value {
        "rare" => named("by_field_name", "field_name").map(|by| JobFunction::Rare { by }),
        "high_distinct_count" => {
            named("field_name", "by_field_name").map(|field| JobFunction::HighDistinctCount { field })
        }
        other => {
            let message = format!("the function `{other}` is not supported");
            let fault = Diagnostic::new(code::BAD_VALUE, function.span, message);
            faults.push(fault.help("`rare` and `high_distinct_count` are"));
            None
        }
    }
}

/// Finds a field that a key names.
pub(super) fn field(name: Placed<&str>, schema: &Schema, faults: &mut Vec<Diagnostic>) -> Option<FieldId> {
    let found = schema.id(name.value);
    if found.is_none() {
        let fault =
            Diagnostic::new(code::UNKNOWN_FIELD, name.span, format!("unknown field `{}`", name.value));
        faults.push(match crate::lang::suggest::nearest(name.value, schema.names()) {
            Some(near) => fault.help(format!("did you mean `{near}`?")),
            None => fault,
        });
    }
    found
}
