//! `lapwing search`: a query over recordings, with the meaning of Elasticsearch's EQL search.

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

/// Schemas that are no files.
const ECS: &str = "ecs";
const INFER: &str = "infer";

/// Find events in recordings, by a query in EQL or KQL
///
/// All events are put in order of time first, and then looked at as Elasticsearch's EQL search does. Results come in
/// ascending order.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to find, such as `process where process.name == "curl" | head 5`
    query: String,
    /// Events (NDJSON or a JSON array) or CloudTrail files, compressed by gzip or Zstandard or not; `-` reads standard
    /// input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The language of the query
    #[arg(long, value_enum, default_value_t = Language::Eql)]
    language: Language,
    /// Which fields there are: those of ECS; `infer` takes names and types from the data; a file with an Elasticsearch
    /// mapping says them, and those that it does not name are taken from the data
    #[arg(long, value_name = "ecs|infer|FILE", default_value = ECS)]
    schema: String,
    /// The field that holds the event category
    #[arg(long, value_name = "FIELD", default_value = "event.category")]
    event_category_field: String,
    /// The field that says when an event happened
    #[arg(long, value_name = "FIELD", default_value = "@timestamp")]
    timestamp_field: String,
    /// The field that orders events of the same time; without it they are taken in the order in which they stand
    #[arg(long, value_name = "FIELD")]
    tiebreaker_field: Option<String>,
    /// Most results, also where a pipe asks for more
    #[arg(long, value_name = "COUNT", default_value_t = SearchOptions::default().size, value_parser = count)]
    size: usize,
    /// Which results to take where there are more: the earliest or the latest
    #[arg(long, value_enum, default_value_t = Position::Tail)]
    result_position: Position,
    /// Most samples of one key
    #[arg(long, value_name = "COUNT", default_value_t = SearchOptions::default().max_samples_per_key, value_parser = count)]
    max_samples_per_key: usize,
    /// One JSON object a line: `{"event": …}`, or `{"join_keys": […], "events": […]}` for sequences and samples
    #[arg(long)]
    json: bool,
    /// A configuration file, for the databases that tell where CloudTrail's addresses are
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    /// The Event Query Language
    Eql,
    /// The Kibana Query Language
    Kuery,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Position {
    /// The earliest
    Head,
    /// The latest
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

/// A search under way.
struct Searching {
    search: Search<Rc<Known>>,
    for_events: bool,
    schema: Arc<Schema>,
    refused: Refused,
    events: u64,
}

/// What is known of an event that may be in a result.
struct Known {
    event: Arc<Event>,
    /// The text of the document, unless ECS was made of a record of CloudTrail's.
    document: Option<Box<str>>,
}

impl Searching {
    /// What makes events of the recordings.
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
                Err(error) => self.refused.tell(&error),
            }
        }
    }

    /// Shows what was found.
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
            "{} times something that may be part of a result could not be held: make the query narrower, or give it \
             fewer events",
            results.discarded
        ));
        Ok(ExitCode::FAILURE)
    }
}

fn summary<T>(results: &SearchResults<T>, events: u64) -> String {
    let read = format!("{events} {} read", if events == 1 { "event" } else { "events" });
    match (results.found.len() as u64, results.total) {
        (shown, total) if shown == total => format!("{read}, {total} found"),
        (shown, total) => format!("{read}, {shown} of {total} found are shown"),
    }
}

/// A stream that can be read as often as is needed.
enum Input {
    File(PathBuf),
    /// What can be read only once, kept in a file without a name.
    Kept(String, File),
}

impl Input {
    fn new(file: &Path, read_twice: bool) -> Result<Self> {
        if !read_twice || std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(Self::File(file.to_owned()));
        }
        let mut kept = tempfile::tempfile().context("no file can be made for what is read twice")?;
        let (name, copied) = if file == Path::new("-") {
            ("standard input".to_owned(), io::copy(&mut io::stdin(), &mut kept))
        } else {
            let name = file.display().to_string();
            let opened = File::open(file).with_context(|| format!("{name} cannot be read"));
            (name, io::copy(&mut opened?, &mut kept))
        };
        copied.with_context(|| format!("{name} cannot be read, or kept for being read twice"))?;
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

/// The fields there are, and the one that says when events happened.
fn schema(args: &Args, inputs: &[Input]) -> Result<(Schema, FieldId)> {
    let mapping = match args.schema.as_str() {
        ECS => {
            let schema = Schema::new();
            let timestamp = named(&schema, "--timestamp-field", &args.timestamp_field)?;
            if schema.ty(timestamp) != Type::Date {
                bail!("--timestamp-field: `{}` is no date", args.timestamp_field);
            }
            return Ok((schema, timestamp));
        }
        INFER => Mapping { schema: Schema::empty(), is_dynamic: true },
        file => mapping(file).with_context(|| format!("{file} cannot be read as a mapping"))?,
    };
    let mut inference = Inference::beside(mapping.schema);
    for input in inputs.iter().filter(|_| mapping.is_dynamic) {
        // What cannot be read is told when the events are.
        input.documents()?.flatten().for_each(|document| inference.see(&document));
    }
    let left_out = inference.left_out();
    if left_out > 0 {
        complain(&format!("{left_out} values are in more fields than there can be, and are not looked at"));
    }
    Ok(inference.finish(&args.timestamp_field)?)
}

fn mapping(file: &str) -> Result<Mapping> {
    let json = serde_json::from_reader(io::BufReader::new(File::open(file)?))?;
    Ok(Mapping::read(&json)?)
}

/// The query; `None` where it is wrong, which is then told.
fn query(args: &Args, schema: &mut Schema) -> Option<eql::Search> {
    let read = match args.language {
        Language::Eql => eql::parse_search(&args.query, schema),
        Language::Kuery => kql::parse(&args.query, schema).map(|(query, warnings)| {
            (eql::Search { query: Query::Event(query), pipes: Vec::new() }, warnings)
        }),
    };
    let tell = |diagnostics: Vec<Diagnostic>| {
        if !diagnostics.is_empty() {
            let report = Report { file: "query".into(), text: args.query.as_str().into(), diagnostics };
            complain(&report::render(&report, styled()));
        }
    };
    match read {
        Ok((query, warnings)) => {
            tell(warnings);
            Some(query)
        }
        Err(faults) => {
            tell(faults);
            None
        }
    }
}

fn options(args: &Args, query: &Query, schema: &Schema) -> Result<SearchOptions> {
    let tiebreaker = args.tiebreaker_field.as_deref();
    let asks_category = query.events().any(|query| query.category.is_some());
    Ok(SearchOptions {
        event_category_field: if asks_category {
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

/// The field of this name, which an option named.
fn named(schema: &Schema, option: &str, name: &str) -> Result<FieldId> {
    schema.id(name).ok_or_else(|| match nearest(name, schema.names()) {
        Some(near) => anyhow!("{option}: no event has a field `{name}`; did you mean `{near}`?"),
        None => anyhow!("{option}: no event has a field `{name}`"),
    })
}

/// A number of results.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number above 0 is needed".to_owned()),
        Ok(count) => Ok(count),
    }
}
