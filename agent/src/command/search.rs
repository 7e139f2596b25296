//! `lapwing search`: searches recordings with the semantics of Elasticsearch's EQL search.

mod show;

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;
use lapwing_engine::event::{Inference, Mapping};
use lapwing_engine::lang::{Diagnostic, Query, eql, kql, nearest};
use lapwing_engine::{
    Event, FieldId, Report, ResultPosition, Schema, Search, SearchOptions, SearchResults, Type, field,
};

use self::show::Shown;
use super::{Refused, complain, styled};
use crate::config::Config;
use crate::report;
use crate::source::cloudtrail::Geo;
use crate::source::{Documents, Recorded, Replay};

/// Values of `--schema` that are no files.
const ECS: &str = "ecs";
const INFER: &str = "infer";

/// Search recorded events with an EQL or KQL query
///
/// Events are sorted by time, then searched as by Elasticsearch's EQL search. Results are in ascending order.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Query, such as `process where process.name == "curl" | head 5`
    query: String,
    /// Events (NDJSON or a JSON array) or CloudTrail files, plain or compressed with gzip or Zstandard; `-` is standard
    /// input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Query language
    #[arg(long, value_enum, default_value_t = Language::Eql)]
    language: Language,
    /// Fields and their types: `ecs`, `infer` (from the data), or a file with an Elasticsearch mapping, whose missing
    /// fields are inferred
    #[arg(long, value_name = "ecs|infer|FILE", default_value = ECS)]
    schema: String,
    /// Field with the event category
    #[arg(long, value_name = "FIELD", default_value = "event.category")]
    event_category_field: String,
    /// Field with the time of an event
    #[arg(long, value_name = "FIELD", default_value = "@timestamp")]
    timestamp_field: String,
    /// Field that orders events of the same time [default: their order in the files]
    #[arg(long, value_name = "FIELD")]
    tiebreaker_field: Option<String>,
    /// Maximum number of results, whatever the pipes say
    #[arg(long, value_name = "COUNT", default_value_t = SearchOptions::default().size, value_parser = count)]
    size: usize,
    /// Results to return if there are more than the maximum
    #[arg(long, value_enum, default_value_t = Position::Tail)]
    result_position: Position,
    /// Maximum number of samples per key
    #[arg(long, value_name = "COUNT", default_value_t = SearchOptions::default().max_samples_per_key, value_parser = count)]
    max_samples_per_key: usize,
    /// Print JSON lines: `{"event": …}`, or `{"join_keys": […], "events": […]}` for sequences and samples
    #[arg(long)]
    json: bool,
    /// Configuration file, for the GeoIP databases of CloudTrail
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    /// Event Query Language
    Eql,
    /// Kibana Query Language
    Kuery,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Position {
    /// Earliest
    Head,
    /// Latest
    Tail,
}

/// Runs it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let inputs = args.files.iter().map(|file| Input::new(file, args.schema != ECS));
    let inputs: Vec<_> = inputs.collect::<Result<_>>()?;
    let (mut schema, timestamp) = schema(args, &inputs)?;
    let Some(query) = query(args, &mut schema) else { return Ok(ExitCode::FAILURE) };
    let options = options(args, &query.query, &schema)?;
    let search = Search::new(query, &schema, options);
    let mut searching = Searching {
        for_events: search.is_for_events(),
        search,
        schema: Arc::new(schema),
        refused: Refused::default(),
        events: 0,
    };
    let mut replay = searching.replay(args, timestamp)?;
    for input in &inputs {
        searching.run(&mut replay, input.documents()?);
    }
    searching.finish(args)
}

/// A search in progress.
struct Searching {
    search: Search<Rc<Known>>,
    for_events: bool,
    schema: Arc<Schema>,
    refused: Refused,
    events: u64,
}

/// An event that may be part of a result.
struct Known {
    event: Arc<Event>,
    /// The text of the document, unless the event was converted from a CloudTrail record.
    document: Option<Box<str>>,
}

impl Searching {
    /// The reader that decodes the recordings.
    fn replay(&self, args: &Args, timestamp: FieldId) -> Result<Replay> {
        if args.schema != ECS {
            return Ok(Replay::plain(self.schema.clone(), timestamp));
        }
        let config = args.config.as_deref().map(Config::read).transpose()?;
        let cloudtrail = config.unwrap_or_default().cloudtrail;
        let geo = Geo::open(cloudtrail.geoip.as_deref(), cloudtrail.asn.as_deref(), &std::env::temp_dir());
        Ok(Replay::new(self.schema.clone(), geo).timed_by(timestamp))
    }

    fn run(&mut self, replay: &mut Replay, documents: Documents) {
        for recorded in replay.events(documents) {
            match recorded {
                Ok(Recorded { event, document }) => {
                    self.events += 1;
                    let event = Arc::new(event);
                    self.search.push(event.clone(), || {
                        let document = document.map(|document| document.to_string().into());
                        Rc::new(Known { event, document })
                    });
                }
                Err(error) => self.refused.report_error(&error),
            }
        }
    }

    /// Prints the results.
    fn finish(self, args: &Args) -> Result<ExitCode> {
        let results = self.search.finish();
        let shown = Shown { results: &results, for_events: self.for_events, schema: &self.schema };
        if args.json {
            shown.json(io::stdout().lock())?;
        } else {
            shown.text(io::stdout().lock())?;
            complain(&summary(&results, self.events));
        }
        let code = self.refused.finish();
        if results.discarded == 0 {
            return Ok(code);
        }
        complain(&format!(
            "{} partial results were discarded because memory is limited: narrow the query, or search fewer events",
            results.discarded
        ));
        Ok(ExitCode::FAILURE)
    }
}

fn summary<T>(results: &SearchResults<T>, events: u64) -> String {
    let read = format!("{events} {} read", if events == 1 { "event" } else { "events" });
    match (results.found.len() as u64, results.total) {
        (shown, total) if shown == total => format!("{read}, {total} found"),
        (shown, total) => format!("{read}, {total} found, {shown} shown"),
    }
}

/// An input that can be read more than once.
enum Input {
    File(PathBuf),
    /// A copy of a stream, in an unnamed temporary file.
    Kept(String, File),
}

impl Input {
    fn new(file: &Path, read_twice: bool) -> Result<Self> {
        if !read_twice || std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(Self::File(file.to_owned()));
        }
        let mut kept = tempfile::tempfile().context("cannot create a temporary file")?;
        let (name, copied) = if file == Path::new("-") {
            ("standard input".to_owned(), io::copy(&mut io::stdin(), &mut kept))
        } else {
            let name = file.display().to_string();
            let opened = File::open(file).with_context(|| format!("{name} cannot be read"));
            (name, io::copy(&mut opened?, &mut kept))
        };
        copied.with_context(|| format!("{name} cannot be copied to a temporary file"))?;
        Ok(Self::Kept(name, kept))
    }

    fn documents(&self) -> Result<Documents> {
        match self {
            Self::File(file) => Documents::open(file),
            Self::Kept(name, file) => {
                let mut file = file.try_clone()?;
                file.rewind()?;
                Documents::new(file, name)
            }
        }
    }
}

/// The schema, and the field with the time of an event.
fn schema(args: &Args, inputs: &[Input]) -> Result<(Schema, FieldId)> {
    let mapping = match args.schema.as_str() {
        ECS => {
            let schema = Schema::new();
            let timestamp = named(&schema, "--timestamp-field", &args.timestamp_field)?;
            if schema.ty(timestamp) != Type::Date {
                bail!("--timestamp-field: `{}` is not a date", args.timestamp_field);
            }
            return Ok((schema, timestamp));
        }
        INFER => Mapping { schema: Schema::empty(), is_dynamic: true },
        file => mapping(file).with_context(|| format!("{file} cannot be read as a mapping"))?,
    };
    let mut inference = Inference::beside(mapping.schema);
    for input in inputs.iter().filter(|_| mapping.is_dynamic) {
        // Errors are reported when the events are searched.
        input.documents()?.flatten().for_each(|document| inference.see(&document));
    }
    let left_out = inference.left_out();
    if left_out > 0 {
        complain(&format!("{left_out} values were ignored: there are too many fields"));
    }
    Ok(inference.finish(&args.timestamp_field)?)
}

fn mapping(file: &str) -> Result<Mapping> {
    let json = serde_json::from_reader(io::BufReader::new(File::open(file)?))?;
    Ok(Mapping::read(&json)?)
}

/// The query; `None` if it is invalid, with the diagnostics printed.
fn query(args: &Args, schema: &mut Schema) -> Option<eql::PipedQuery> {
    let read = match args.language {
        Language::Eql => eql::parse_search(&args.query, schema),
        Language::Kuery => kql::parse(&args.query, schema).map(|(query, warnings)| {
            (eql::PipedQuery { query: Query::Event(query), pipes: Vec::new() }, warnings)
        }),
    };
    let print_diagnostics = |diagnostics: Vec<Diagnostic>| {
        if !diagnostics.is_empty() {
            let report = Report { file: "query".into(), text: args.query.as_str().into(), diagnostics };
            complain(&report::render(&report, styled()));
        }
    };
    match read {
        Ok((query, warnings)) => {
            print_diagnostics(warnings);
            Some(query)
        }
        Err(faults) => {
            print_diagnostics(faults);
            None
        }
    }
}

fn options(args: &Args, query: &Query, schema: &Schema) -> Result<SearchOptions> {
    let tiebreaker = args.tiebreaker_field.as_deref();
    let uses_category = query.events().any(|query| query.category.is_some());
    Ok(SearchOptions {
        event_category_field: if uses_category {
            named(schema, "--event-category-field", &args.event_category_field)?
        } else {
            field!("event.category")
        },
        tiebreaker_field: tiebreaker.map(|name| named(schema, "--tiebreaker-field", name)).transpose()?,
        size: args.size,
        result_position: match args.result_position {
            Position::Head => ResultPosition::Head,
            Position::Tail => ResultPosition::Tail,
        },
        max_samples_per_key: args.max_samples_per_key,
        ..SearchOptions::default()
    })
}

/// The field that an option names.
fn named(schema: &Schema, option: &str, name: &str) -> Result<FieldId> {
    schema.id(name).ok_or_else(|| match nearest(name, schema.names()) {
        Some(near) => anyhow!("{option}: unknown field `{name}`; did you mean `{near}`?"),
        None => anyhow!("{option}: unknown field `{name}`"),
    })
}

/// Parses a number of results.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number above 0".to_owned()),
        Ok(count) => Ok(count),
    }
}
