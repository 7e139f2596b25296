//! `lapwing record`: the events of this host into a file, to be judged again by `lapwing replay`, here or elsewhere. The
//! events are those of the agent that runs; where none does, a sensor is started for them.

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
use crate::config::{Config, DEFAULT_PATH, SensorConfig};
use crate::control::{self, Line, Lines, Request};
use crate::recording::{self, Head, Recorder, Written};
use crate::sensor::{HookState, Kept, Sensor};
use crate::source::Source as _;

/// How long to wait for events before looking whether to stop.
const WAIT: Duration = Duration::from_millis(100);
/// How long it goes on when it is told to stop: what happened until then has come from the agent's sensor by then.
const LINGER: Duration = Duration::from_millis(300);
/// How often a person is told how far it has come.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Record events into a file, to replay them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to; a file that is there already is not touched
    file: PathBuf,
    /// How long, such as `90s` or `1h`; otherwise until Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = clock::period)]
    duration: Option<Duration>,
    /// At the end, one JSON object on what was recorded
    #[arg(long)]
    json: bool,
    /// The configuration file; where it is not there, a sensor is started
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Records until it is told to stop, the time is over, or there is nothing more to record.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if args.file.symlink_metadata().is_ok() {
        return Err(is_there(&args.file));
    }
    let config = if args.config.exists() { Config::read(&args.config)? } else { Config::default() };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot catch signals")?;
    }
    let source = match control::ask(&config.control.socket, &Request::Record)? {
        Some(answer) => Events::Agent(answer.lines(WAIT)?),
        None => Events::Sensor(Box::new(sensor(&config.sensor, &stop)?), Schema::new()),
    };
    let file = create(&args.file)?;
    let recorder = Recorder::new(file, &head(&source)).with_context(|| failed(&args.file))?;
    let mut recording = Recording { recorder, source, lost: 0 };
    let is_whole = recording.run(args, &stop).inspect_err(|_| {
        if recording.recorder.written().events == 0 {
            // A recording of nothing is of no use; where it cannot be removed it stays.
            let _ = fs::remove_file(&args.file);
        }
    })?;
    let (file, written) = recording.recorder.end().with_context(|| failed(&args.file))?;
    file.sync_all().with_context(|| failed(&args.file))?;
    tell(args, written, recording.lost)?;
    if is_whole {
        return Ok(ExitCode::SUCCESS);
    }
    complain("the agent has ended, and with it the recording");
    Ok(ExitCode::FAILURE)
}

/// Where the events come from.
enum Events {
    /// The agent that runs, as lines.
    Agent(Lines),
    /// A sensor of our own.
    Sensor(Box<Sensor>, Schema),
}

/// A recording under way.
struct Recording {
    recorder: Recorder<File>,
    source: Events,
    /// Records that a sensor of our own lost.
    lost: u64,
}

impl Recording {
    /// Returns whether it went on for as long as was wanted.
    fn run(&mut self, args: &Args, stop: &AtomicBool) -> Result<bool> {
        let start = Instant::now();
        let mut progress = Progress::new();
        let (mut asked, mut is_told) = (None, false);
        while self.take().with_context(|| failed(&args.file))? {
            self.recorder.tick().with_context(|| failed(&args.file))?;
            progress.show(start.elapsed(), self.recorder.written());
            if args.duration.is_some_and(|length| start.elapsed() >= length) {
                // A sensor of our own ends by this.
                stop.store(true, Relaxed);
            }
            if asked.is_none() && stop.load(Relaxed) {
                asked = Some(Instant::now());
            }
            if let (Events::Agent(lines), Some(asked)) = (&self.source, asked)
                && asked.elapsed() >= LINGER
                && !std::mem::replace(&mut is_told, true)
            {
                lines.enough()?;
            }
        }
        Ok(stop.load(Relaxed))
    }

    /// Takes what has come, having waited for it a while; false where there is no more to come.
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

fn sensor(config: &SensorConfig, stop: &Arc<AtomicBool>) -> Result<Sensor> {
    let sensor = Sensor::start(config, stop.clone(), Kept::nothing())?;
    for hook in sensor.hooks().iter().filter(|hook| hook.state != HookState::Attached) {
        complain(&format!("{} {}: {}", hook.name, hook.state, hook.reason.as_deref().unwrap_or_default()));
    }
    Ok(sensor)
}

/// Makes the file, for its owner alone: it holds what people typed, with what they should not have typed.
fn create(file: &Path) -> Result<File> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(file),
        _ => anyhow!("{} cannot be written: {error}", file.display()),
    })
}

fn is_there(file: &Path) -> Error {
    anyhow!("{} is there already: name another file, or remove it", file.display())
}

fn failed(file: &Path) -> String {
    format!("{} cannot be written; what is in it can be replayed", file.display())
}

fn head(source: &Events) -> Head {
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
    Head::new(host, boot.trim().to_owned(), kernel, by, clock::now())
}

fn tell(args: &Args, written: Written, lost: u64) -> Result<()> {
    let Written { events, missed, bytes } = written;
    if args.json {
        let file = args.file.display().to_string();
        let told =
            json!({"file": file, "events": events, "missed": missed, "lost_records": lost, "bytes": bytes});
        return print_json(&told.to_string());
    }
    if missed > 0 {
        complain(&format!("{missed} events came faster than they were recorded"));
    }
    if lost > 0 {
        complain(&format!("{lost} records were lost in the kernel"));
    }
    if io::stdout().is_terminal() {
        let size = ByteSize::b(bytes);
        print(&format!("{events} events in {size}; `lapwing replay {}` replays them", args.file.display()))?;
    }
    Ok(())
}

/// Tells a person, and nobody else, how far it has come.
struct Progress {
    is_shown: bool,
    told: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), told: None }
    }

    fn show(&mut self, since: Duration, written: Written) {
        if !self.is_shown || self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        let (seconds, size) = (since.as_secs(), ByteSize::b(written.bytes));
        let line = format!("\r{seconds} s: {} events, {size}; Ctrl-C ends it ", written.events);
        // Where nobody can be told, nobody is.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told.is_some() {
            let _ = io::stderr().write_all(b"\n");
        }
    }
}
