//! `lapwing record`: writes the events of this host to a file, for `lapwing replay` here or elsewhere. They come from the
//! running agent; if there is none, the command starts a sensor.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow};
use bytesize::ByteSize;
use lapwing_engine::Schema;
use nix::sys::utsname::uname;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{complain, print, print_json};
use crate::bounded::{self, HOST_FILE_BYTES_MAX};
use crate::clock;
use crate::config::{Config, DEFAULT_PATH};
use crate::control::{self, Line, Lines, Request};
use crate::recording::{self, Recorder, RecordingHeader, WrittenCounts};
use crate::sensor::{self, HookState, Sensor, StoredFds};
use crate::source::Source as _;

/// How long to wait for events before checking the stop flag.
const WAIT: Duration = Duration::from_millis(100);
/// How long recording continues after a stop request, so that events from before it arrive from the agent's sensor.
const LINGER: Duration = Duration::from_millis(300);
/// How often the progress is printed on a terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Record events to a file
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output file; must not exist
    file: PathBuf,
    /// Duration, such as `90s` or `1h` [default: until Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = clock::period)]
    duration: Option<Duration>,
    /// Print a summary as one JSON object
    #[arg(long)]
    json: bool,
    /// Configuration file; it need not exist
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Records until a signal, the end of the duration, or the end of the agent.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if args.file.symlink_metadata().is_ok() {
        return Err(is_there(&args.file));
    }
    let config = if args.config.exists() { Config::read(&args.config)? } else { Config::default() };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot catch signals")?;
    }
    let source = match control::request(&config.control.socket, &Request::Record)? {
        Some(answer) => Events::Agent(answer.lines(WAIT)?),
        None => Events::Sensor(Box::new(start_sensor(&config.sensor, &stop)?), Schema::new()),
    };
    let file = create(&args.file)?;
    let recorder = Recorder::new(file, &head(&source)).with_context(|| failed(&args.file))?;
    let mut recording = Recording { recorder, source, lost: 0 };
    let is_whole = recording.run(args, &stop).inspect_err(|_| {
        if recording.recorder.written().events == 0 {
            // An empty recording is removed if possible.
            let _ = fs::remove_file(&args.file);
        }
    })?;
    let (file, written) = recording.recorder.end().with_context(|| failed(&args.file))?;
    file.sync_all().with_context(|| failed(&args.file))?;
    print_summary(args, written, recording.lost)?;
    if is_whole {
        return Ok(ExitCode::SUCCESS);
    }
    complain("the agent ended; the recording is incomplete");
    Ok(ExitCode::FAILURE)
}

/// Where the events come from.
enum Events {
    /// The running agent, as lines.
    Agent(Lines),
    /// A sensor that this command started.
    Sensor(Box<Sensor>, Schema),
}

/// A recording under way.
struct Recording {
    recorder: Recorder<File>,
    source: Events,
    /// Records that the own sensor lost.
    lost: u64,
}

impl Recording {
    /// Returns whether the recording ended as requested.
    fn run(&mut self, args: &Args, stop: &AtomicBool) -> Result<bool> {
        let start = Instant::now();
        let mut progress = Progress::new();
        let (mut stopped, mut is_closed) = (None, false);
        while self.take().with_context(|| failed(&args.file))? {
            self.recorder.tick().with_context(|| failed(&args.file))?;
            progress.show(start.elapsed(), self.recorder.written());
            if args.duration.is_some_and(|length| start.elapsed() >= length) {
                // This ends the own sensor.
                stop.store(true, Relaxed);
            }
            if stopped.is_none() && stop.load(Relaxed) {
                stopped = Some(Instant::now());
            }
            if let (Events::Agent(lines), Some(stopped)) = (&self.source, stopped)
                && stopped.elapsed() >= LINGER
                && !std::mem::replace(&mut is_closed, true)
            {
                lines.enough()?;
            }
        }
        Ok(stop.load(Relaxed))
    }

    /// Records the events that arrive within [`WAIT`]. Returns false at the end of input.
    fn take(&mut self) -> Result<bool> {
        match &mut self.source {
            Events::Agent(lines) => match lines.next()? {
                Line::Whole(line) => self.recorder.event(line)?,
                Line::Missed(events) => self.recorder.missed(events)?,
                Line::Late => {}
                Line::End => return Ok(false),
            },
            Events::Sensor(sensor, schema) => {
                let Some(batch) = sensor.next(WAIT)? else {
                    self.lost = sensor.status().records.iter().map(|(_, counts, _)| counts.lost).sum();
                    return Ok(false);
                };
                let mut line = Vec::new();
                for event in &batch.events {
                    line.clear();
                    recording::write_line(event, schema, &mut line);
                    self.recorder.event(&line)?;
                }
            }
        }
        Ok(true)
    }
}

fn start_sensor(config: &sensor::Config, stop: &Arc<AtomicBool>) -> Result<Sensor> {
    let sensor = Sensor::start(config, stop.clone(), StoredFds::none())?;
    for hook in sensor.hooks().iter().filter(|hook| hook.state != HookState::Attached) {
        complain(&format!("{} {}: {}", hook.name, hook.state, hook.reason.as_deref().unwrap_or_default()));
    }
    Ok(sensor)
}

/// Creates the file, readable by its owner only: command lines may contain secrets.
fn create(file: &Path) -> Result<File> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(file),
        _ => anyhow!("{} cannot be written: {error}", file.display()),
    })
}

fn is_there(file: &Path) -> Error {
    anyhow!("{} exists: choose another file, or remove it", file.display())
}

fn failed(file: &Path) -> String {
    format!("{} cannot be written; its content so far can be replayed", file.display())
}

fn head(source: &Events) -> RecordingHeader {
    let system = uname().ok();
    let part = |of: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        system.as_ref().map(|name| of(name).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let boot = bounded::read_text("/proc/sys/kernel/random/boot_id", HOST_FILE_BYTES_MAX).unwrap_or_default();
    let by = match source {
        Events::Agent(_) => "agent",
        Events::Sensor(..) => "sensor",
    };
    let (host, kernel) = (part(|name| name.nodename()), part(|name| name.release()));
    RecordingHeader::new(host, boot.trim().to_owned(), kernel, by, clock::now())
}

fn print_summary(args: &Args, written: WrittenCounts, lost: u64) -> Result<()> {
    let WrittenCounts { events, missed, bytes } = written;
    if args.json {
        let file = args.file.display().to_string();
        let summary =
            json!({"file": file, "events": events, "missed": missed, "lost_records": lost, "bytes": bytes});
        return print_json(&summary.to_string());
    }
    if missed > 0 {
        complain(&format!("{missed} events were dropped: they came faster than they were recorded"));
    }
    if lost > 0 {
        complain(&format!("{lost} records were lost in the kernel"));
    }
    if io::stdout().is_terminal() {
        let size = ByteSize::b(bytes);
        print(&format!(
            "recorded {events} events, {size}; replay them with `lapwing replay {}`",
            args.file.display()
        ))?;
    }
    Ok(())
}

/// The progress, printed only if standard error is a terminal.
struct Progress {
    is_shown: bool,
    printed: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), printed: None }
    }

    fn show(&mut self, since: Duration, written: WrittenCounts) {
        if !self.is_shown || self.printed.is_some_and(|printed| printed.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.printed = Some(Instant::now());
        let (seconds, size) = (since.as_secs(), ByteSize::b(written.bytes));
        let line = format!("\r{seconds} s: {} events, {size}; Ctrl-C ends it ", written.events);
        // The progress is not important enough to report an error.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.printed.is_some() {
            let _ = io::stderr().write_all(b"\n");
        }
    }
}
