//! `cargo xtask demo`: the agent on this host's kernel, and each of its five detections set off for real.
//!
//! Two hosts in network namespaces stand for the host that is attacked and the one far away. Real tools attack; the
//! alerts are read from the agent's log and shown as a responder sees them.

mod act;
mod cloud;

use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use lapwing_stage::pypi::{AWS, Environment};
use lapwing_stage::trail::Trail;
use lapwing_stage::{Agent, Alert, Hosts, Settings};

use crate::shell::{self, say};
use crate::{build, needs};

/// How long an alert may take. The slowest tool, the AWS command line, takes seconds to come to the point.
const PATIENCE: Duration = Duration::from_secs(60);

/// How wide alerts are shown.
const COLUMNS: &str = "100";

/// What the demo shows: the rules, in the order of their numbers, and what sets them off.
#[rustfmt::skip]
const DETECTIONS: &[Detection] = &[
    Detection {
        rule: "AWS SSM `SendCommand` with Run Shell Command Parameters",
        act: "the AWS command line sends a shell command to an instance",
        run: act::send_command,
    },
    Detection {
        rule: "Potential Reverse Shell via Suspicious Child Process",
        act: "netcat ties a shell to a host far away",
        run: act::reverse_shell,
    },
    Detection {
        rule: "Unusual Instance Metadata Service (IMDS) API Request",
        act: "curl asks the instance metadata service for credentials",
        run: act::imds_request,
    },
    Detection {
        rule: "AWS EC2 Instance Connect SSH Public Key Uploaded",
        act: "CloudTrail delivers a file: a key was pushed to an instance",
        run: cloud::key_upload,
    },
    Detection {
        rule: "Unusual Country For an AWS Command",
        act: "CloudTrail delivers a file: a call that its country never made",
        run: cloud::rare_country,
    },
];

struct Detection {
    rule: &'static str,
    act: &'static str,
    /// Sets it off. It returns when the cause was there, where the alert does not say so itself.
    run: fn(&Scene) -> Result<Option<SystemTime>>,
}

/// What acts are made on.
struct Scene {
    hosts: Hosts,
    agent: Agent,
    trail: Trail,
    /// The AWS command line, and a server that answers it.
    aws: Environment,
}

/// Runs the demo.
///
/// # Errors
/// Not every detection fired once; the sentence says which did not.
pub(crate) fn run() -> Result<()> {
    if !shell::is_root() {
        bail!(
            "the demo loads kernel programs and makes network namespaces: run it as root, `sudo cargo xtask demo`"
        );
    }
    needs::install()?;
    if Environment::installed(AWS).is_none() {
        say("installing the AWS command line and a server for it");
    }
    let aws = Environment::install(AWS)?;
    let program = build::run(&build::Arguments { release: true, ..build::Arguments::default() })?;
    say("starting the agent on this host's kernel");
    let hosts = Hosts::new()?;
    let trail = Trail::new()?;
    let rules = shell::root().join("packaging/rules");
    let agent = Agent::start(Settings {
        program,
        rules,
        configuration: trail.configuration(),
        ..Settings::default()
    })?;
    let scene = Scene { hosts, agent, trail, aws };

    let mut fired = 0;
    for (number, detection) in DETECTIONS.iter().enumerate() {
        show(&format!("\n{} of {}: {}", number + 1, DETECTIONS.len(), detection.act))?;
        match scene.play(detection) {
            Ok(()) => fired += 1,
            Err(error) => show(&format!("   MISSING: {error:#}"))?,
        }
    }
    let doubled = scene.doubled()?;
    show(&format!("\n{fired} of {} detections fired", DETECTIONS.len()))?;
    match (fired == DETECTIONS.len(), doubled.as_slice()) {
        (true, []) => Ok(()),
        (false, _) => bail!("{} detections did not fire", DETECTIONS.len() - fired),
        (true, doubled) => bail!("these fired more than once: {}", doubled.join(", ")),
    }
}

impl Scene {
    fn play(&self, detection: &Detection) -> Result<()> {
        let mark = self.agent.mark();
        let is_it = |alert: &Alert| alert.rule() == detection.rule;
        let (cause, alert) = std::thread::scope(|scope| {
            // Tools go on for seconds after their alert, which is to be seen when it comes.
            let waiting = scope.spawn(|| self.agent.wait_for_within("its alert", mark, PATIENCE, is_it));
            let cause = (detection.run)(self);
            let alert = waiting.join().unwrap_or_else(|_| Err(anyhow!("the wait for its alert panicked")));
            anyhow::Ok((cause?, alert?))
        })?;
        let cause = match cause {
            Some(cause) => cause,
            None => time_of(&alert)?,
        };
        let delay = alert.seen.duration_since(cause).unwrap_or_default();
        show(&self.page(&alert)?)?;
        show(&format!("   -> {:.0} ms from the cause to the alert in the log", delay.as_secs_f64() * 1000.0))
    }

    /// The alert as `lapwing alerts` shows it, without the rule's guide, which is the same every time.
    fn page(&self, alert: &Alert) -> Result<String> {
        let mut command = self.agent.command("alerts");
        command.args(["--brief", alert.text("/lapwing/alert/id")]).env("COLUMNS", COLUMNS);
        let page = shell::output(&mut command)?;
        Ok(page.lines().map(|line| format!("   {line}").trim_end().to_owned() + "\n").collect())
    }

    /// Rules of the demo that fired more than once.
    fn doubled(&self) -> Result<Vec<&'static str>> {
        let alerts = self.agent.alerts()?;
        let count = |rule: &str| alerts.iter().filter(|alert| alert.rule() == rule).count();
        Ok(DETECTIONS.iter().map(|detection| detection.rule).filter(|rule| count(rule) > 1).collect())
    }
}

/// When the last event of an alert happened, by the kernel's clock.
fn time_of(alert: &Alert) -> Result<SystemTime> {
    let text = alert.text("/@timestamp");
    let time: jiff::Timestamp = text.parse().with_context(|| format!("{text} is no time"))?;
    Ok(time.into())
}

fn show(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("standard output is closed")
}
