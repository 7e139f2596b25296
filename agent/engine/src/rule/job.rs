//! Machine learning jobs, which rules of type `machine_learning` name. A job is a TOML file of our own with a `[job]`
//! table.

use std::time::Duration;

use super::document::{DocumentTable, Placed, place_in_string};
use super::keys::check_job;
use crate::event::{FieldId, Schema};
use crate::lang::diagnostic::{Diagnostic, Level, code};
use crate::lang::{EventQuery, kql};

/// The default of `buckets_learned_min`: how many buckets a partition must learn before it can report an anomaly.
const BUCKETS_LEARNED_MIN: i64 = 20;

/// The function of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobFunction {
    /// `rare`: values of a field that occur in few buckets.
    Rare {
        /// `by_field_name`
        by: FieldId,
    },
    /// `high_distinct_count`: buckets in which a field has unusually many distinct values.
    HighDistinctCount {
        /// `field_name`
        field: FieldId,
    },
}

/// A job that detects anomalies.
#[derive(Clone, Debug)]
pub struct Job {
    /// The id by which rules name it.
    pub id: String,
    /// Its description.
    pub description: String,
    /// Patterns of the Elasticsearch indices that it reads.
    pub index: Vec<String>,
    /// The query for the events from which it learns.
    pub query: EventQuery,
    /// The function.
    pub function: JobFunction,
    /// The partition field, whose values are scored separately.
    pub partition: Option<FieldId>,
    /// The length of a bucket.
    pub bucket_span: Duration,
    /// How many buckets a partition must learn before it can report an anomaly.
    pub buckets_learned_min: u64,
}

impl Job {
    /// The fields of its function and its partition.
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
