//! A running agent with its own folder.

use std::fs;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::at_end::AtEnd;
use crate::wait::until;

/// How long an agent may take to become ready: it tests its hooks and reads every process.
const READY: Duration = Duration::from_secs(120);
/// How long an agent may take to end.
const END: Duration = Duration::from_secs(30);

/// The settings of an agent.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The program.
    pub program: PathBuf,
    /// Its rules.
    pub rules: PathBuf,
    /// Further configuration in TOML: keys such as `alerts.gzip`, then sections. The stage itself sets
    /// `state_dir`, `rules.paths`, `alerts.path` and `control.socket`.
    pub configuration: String,
    /// Environment variables in addition to those of this process.
    pub environment: Vec<(&'static str, String)>,
    /// A program that starts the agent, with its first arguments, such as one that enters a control group.
    pub launcher: Vec<String>,
}

/// A running agent. It is killed when this is dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    _at_end: AtEnd,
    settings: Settings,
    folder: TempDir,
}

/// An alert of the log.
#[derive(Clone, Debug)]
pub struct Alert {
    /// The document.
    pub document: Json,
    /// The time at which its line was read.
    pub seen: SystemTime,
}

impl Alert {
    /// The name of the rule.
    #[must_use]
    pub fn rule(&self) -> &str {
        self.document["message"].as_str().unwrap_or_default()
    }

    /// The text at a JSON pointer of the document, such as `/destination/ip`.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.document.pointer(pointer).and_then(Json::as_str).unwrap_or_default()
    }
}

impl Agent {
    /// Starts an agent and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; the error has its output.
    pub fn start(settings: Settings) -> Result<Self> {
        Self::start_in(&std::env::temp_dir(), settings)
    }

    /// As [`start`](Self::start), with the agent's folder below `parent`: the folder for temporary files may be in
    /// memory.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn start_in(parent: &Path, settings: Settings) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lapwing-").tempdir_in(parent);
        let folder = folder.with_context(|| format!("no folder can be made in {}", parent.display()))?;
        let own = folder.path().display();
        let configuration = format!(
            "state_dir = \"{own}/state\"\nrules.paths = [\"{}\"]\nalerts.path = \"{own}/alerts.ndjson\"\n\
             control.socket = \"{own}/control.sock\"\n{}\n",
            settings.rules.display(),
            settings.configuration,
        );
        fs::write(folder.path().join("lapwing.toml"), configuration).context("the configuration")?;
        let (child, at_end) = spawn(&settings, folder.path())?;
        let mut agent = Self { child, _at_end: at_end, settings, folder };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// The folder with all files of the agent.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A `lapwing` command for this agent.
    #[must_use]
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.settings.program);
        command.arg(verb).arg("--config").arg(self.folder.path().join("lapwing.toml"));
        command
    }

    /// The output of `lapwing status --json`.
    ///
    /// # Errors
    /// There is no valid output.
    pub fn status(&self) -> Result<Json> {
        let output = self.command("status").arg("--json").output().context("lapwing status")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The agent's standard error.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default()
    }

    /// Its alert log.
    #[must_use]
    pub fn alert_log(&self) -> PathBuf {
        self.folder.path().join("alerts.ndjson")
    }

    /// All alerts in the log.
    ///
    /// # Errors
    /// The log cannot be read, or a line of it is not JSON.
    pub fn alerts(&self) -> Result<Vec<Alert>> {
        let path = self.alert_log();
        let mut alerts = Vec::new();
        read_alerts(&path, &mut 0, &mut alerts)?;
        Ok(alerts)
    }

    /// Waits until the log has an alert for which `wanted` holds, after its first `from` bytes.
    ///
    /// # Errors
    /// It does not come; the error lists the alerts that came instead.
    pub fn wait_for(&self, what: &str, from: u64, wanted: impl Fn(&Alert) -> bool) -> Result<Alert> {
        self.wait_for_within(what, from, Duration::from_secs(10), wanted)
    }

    /// As [`wait_for`](Self::wait_for), with another time limit.
    ///
    /// # Errors
    /// As of [`wait_for`](Self::wait_for).
    pub fn wait_for_within(
        &self,
        what: &str,
        from: u64,
        patience: Duration,
        wanted: impl Fn(&Alert) -> bool,
    ) -> Result<Alert> {
        let path = self.alert_log();
        let (mut place, mut came) = (from, Vec::new());
        let found = until(what, patience, || {
            let before = came.len();
            read_alerts(&path, &mut place, &mut came)?;
            Ok(came[before..].iter().find(|alert| wanted(alert)).cloned())
        });
        found.with_context(|| {
            let came: Vec<_> = came.iter().map(|alert| alert.text("/event/reason").to_owned()).collect();
            let status = self.status().map_or_else(|error| format!("{error:#}"), |status| status.to_string());
            format!("alerts that came: {came:?}; its status:\n{status}\nits log:\n{}", self.log())
        })
    }

    /// The present length of the log, in bytes.
    #[must_use]
    pub fn mark(&self) -> u64 {
        fs::metadata(self.alert_log()).map_or(0, |metadata| metadata.len())
    }

    /// Sends SIGTERM to the agent, and waits until it has ended.
    ///
    /// # Errors
    /// It does not end, or ends with an error.
    pub fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let status = self.wait()?;
        if !status.success() {
            bail!("the agent ended with {status}:\n{}", self.log());
        }
        Ok(())
    }

    /// Kills the agent.
    ///
    /// # Errors
    /// It does not end, or has ended by itself before.
    pub fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        let status = self.wait()?;
        if status.signal().is_none() {
            bail!("the agent ended by itself with {status}:\n{}", self.log());
        }
        Ok(())
    }

    /// Starts it again after its end, with its state.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn start_again(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_until_ready()
    }

    /// As [`start_again`](Self::start_again), but it does not wait until the agent is ready.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        (self.child, self._at_end) = spawn(&self.settings, self.folder.path())?;
        Ok(())
    }

    /// The settings for the next start.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Sends it a signal, such as `HUP`.
    ///
    /// # Errors
    /// There is no such signal, or no such process.
    pub fn signal(&self, name: &str) -> Result<()> {
        let signal = Signal::from_str(&format!("SIG{name}")).with_context(|| format!("signal {name}"))?;
        let pid = i32::try_from(self.pid()).context("a number of a process")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{name} to the agent"))
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        until("the end of the agent", END, || Ok(child.try_wait()?))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let socket = self.folder.path().join("control.sock");
        let child = &mut self.child;
        let ready = until("the agent", READY, || match child.try_wait()? {
            Some(status) => bail!("the agent ended with {status}"),
            None => Ok(std::os::unix::net::UnixStream::connect(&socket).ok()),
        });
        ready.map(drop).with_context(|| format!("the agent is not ready; it said:\n{}", self.log()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(settings: &Settings, folder: &Path) -> Result<(Child, AtEnd)> {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("agent.log"))?;
    let mut words = settings.launcher.iter().map(std::ffi::OsStr::new).chain([settings.program.as_os_str()]);
    let child = Command::new(words.next().unwrap_or_default())
        .args(words)
        .arg("run")
        .arg("--config")
        .arg(folder.join("lapwing.toml"))
        .envs(settings.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("{} cannot be started", settings.program.display()))?;
    let at_end = AtEnd::new(&format!("kill -KILL {}; rm -rf '{}'", child.id(), folder.display()))?;
    Ok((child, at_end))
}

/// Reads the complete lines of a log from `place` on, and advances `place`.
fn read_alerts(path: &Path, place: &mut u64, alerts: &mut Vec<Alert>) -> Result<()> {
    let Ok(mut file) = fs::File::open(path) else { return Ok(()) };
    file.seek(SeekFrom::Start(*place))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        *place += line.len() as u64;
        let document = serde_json::from_slice(&line).context("a line of the alert log is no JSON")?;
        alerts.push(Alert { document, seen: SystemTime::now() });
        line.clear();
    }
    Ok(())
}
