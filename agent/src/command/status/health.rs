//! The health of the agent, derived from its status.

use serde::Serialize;
use serde_json::Value as Json;

/// The health of the agent, with the reasons.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    /// The worst level of all reasons.
    pub(super) health: Level,
    /// The reasons, worst first; empty if healthy.
    pub(super) why: Vec<String>,
}

/// The level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// The agent does everything that this kernel supports.
    Healthy,
    /// A part does not work, or will soon stop.
    Degraded,
    /// Events on this host raise no alerts, or cannot be trusted to.
    Blind,
}

impl Level {
    /// The exit status of `lapwing status --health`.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Degraded => 1,
            Self::Blind => 2,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Blind => "blind",
        }
    }
}

/// The checks, in the order of the report.
const CHECKS: [(Level, Check); 9] = [
    (Level::Blind, tampered),
    (Level::Blind, silent),
    (Level::Blind, without_rules),
    (Level::Blind, full),
    (Level::Degraded, refused),
    (Level::Degraded, hooks),
    (Level::Degraded, |status| alarms(&status["ledger"], "")),
    (Level::Degraded, |status| {
        each(&status["sinks"], |sink| alarms(sink, &format!("sink {}: ", text(&sink["name"]))))
    }),
    (Level::Degraded, |status| each(&status["lanes"], |lane| alarms(&lane["source"], ""))),
];

/// A check returns the reasons that it finds in a status.
type Check = fn(&Json) -> Vec<String>;

impl Health {
    /// The health of an agent with this status.
    pub(super) fn of(status: &Json) -> Self {
        let found: Vec<_> = CHECKS
            .iter()
            .flat_map(|(level, check)| check(status).into_iter().map(|why| (*level, why)))
            .collect();
        let health = found.iter().map(|(level, _)| *level).max().unwrap_or(Level::Healthy);
        Self { health, why: found.into_iter().map(|(_, why)| why).collect() }
    }

    /// The health of an agent that does not answer.
    pub(super) fn of_silence(error: &anyhow::Error) -> Self {
        Self { health: Level::Blind, why: vec![format!("{error:#}")] }
    }
}

/// Interference with the sensor that is not resolved.
pub(super) fn tampered(status: &Json) -> Vec<String> {
    each(&status["lanes"], |lane| {
        let acts = lane["source"]["tampered"].as_array().into_iter().flatten();
        acts.map(|act| format!("tampered with: {}", text(act))).collect()
    })
}

fn silent(status: &Json) -> Vec<String> {
    let mut found =
        each(&status["lanes_not_responding"], |lane| vec![format!("lane {} does not answer", text(lane))]);
    if found.is_empty() && status["lanes"].as_array().is_none_or(Vec::is_empty) {
        found.push("no lane runs".to_owned());
    }
    found
}

fn without_rules(status: &Json) -> Vec<String> {
    let run: u64 = lanes(status).map(|lane| lane["rules"].as_u64().unwrap_or(0)).sum();
    let answered = status["lanes_not_responding"].as_array().is_none_or(Vec::is_empty);
    if run == 0 && answered { vec!["no rule runs".to_owned()] } else { Vec::new() }
}

/// Rules wait if memory is full of alerts that cannot be written to disk.
fn full(status: &Json) -> Vec<String> {
    let bytes = |name: &str| status["ledger"][name].as_u64().unwrap_or(0);
    let (held, most) = (bytes("buffered_bytes"), bytes("buffered_bytes_max"));
    if most > 0 && held >= most {
        vec!["rules wait: the disk cannot be written, and memory is full".to_owned()]
    } else {
        Vec::new()
    }
}

fn refused(status: &Json) -> Vec<String> {
    let parts = [
        ("refused_files", "rule files rejected"),
        ("refused_exceptions", "exceptions invalid and not applied"),
    ];
    let counted = parts.iter().map(|(name, words)| (status["rules"][*name].as_u64().unwrap_or(0), words));
    counted.filter(|(count, _)| *count > 0).map(|(count, words)| format!("{count} {words}")).collect()
}

/// Hooks that are attached and produce no events. A hook that this kernel does not have is no fault.
fn hooks(status: &Json) -> Vec<String> {
    each(&status["lanes"], |lane| {
        let hooks = lane["source"]["hooks"].as_array().into_iter().flatten();
        let not_firing = hooks.filter(|hook| hook["state"] == "not_firing");
        not_firing.map(|hook| format!("hook {} is attached and silent", text(&hook["name"]))).collect()
    })
}

/// Alarms are a list, or a table with the place of each.
fn alarms(part: &Json, before: &str) -> Vec<String> {
    match &part["alarms"] {
        Json::Array(alarms) => alarms.iter().map(|alarm| format!("{before}{}", text(alarm))).collect(),
        Json::Object(alarms) => {
            alarms.iter().map(|(place, alarm)| format!("{place}: {}", text(alarm))).collect()
        }
        _ => Vec::new(),
    }
}

fn lanes(status: &Json) -> impl Iterator<Item = &Json> {
    status["lanes"].as_array().into_iter().flatten()
}

fn each(list: &Json, look: impl FnMut(&Json) -> Vec<String>) -> Vec<String> {
    list.as_array().into_iter().flatten().flat_map(look).collect()
}

fn text(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The status of a healthy agent with one value changed.
    fn changed(pointer: &str, value: Json) -> Json {
        let mut status = json!({
            "rules": {"loaded": 3, "enabled": 3, "refused_files": 0, "refused_exceptions": 0},
            "ledger": {"alarms": [], "buffered_bytes": 0, "buffered_bytes_max": 100},
            "sinks": [{"name": "siem", "alarms": []}],
            "lanes": [{"name": "sensor", "rules": 3, "source": {
                "hooks": [{"name": "exec", "state": "attached"}, {"name": "setns", "state": "unavailable"}],
                "tampered": [], "alarms": {},
            }}],
            "lanes_not_responding": [],
        });
        if let Some(place) = status.pointer_mut(pointer) {
            *place = value;
        }
        status
    }

    #[test]
    fn the_health_is_the_worst_level_found() {
        use Level::{Blind, Degraded, Healthy};
        for (pointer, value, health, why) in [
            ("/nothing", Json::Null, Healthy, ""),
            (
                "/lanes/0/source/tampered",
                json!(["hook exec: its link is gone"]),
                Blind,
                "tampered with: hook exec",
            ),
            ("/lanes_not_responding", json!(["sensor"]), Blind, "lane sensor does not answer"),
            ("/lanes", json!([]), Blind, "no lane runs"),
            ("/lanes/0/rules", json!(0), Blind, "no rule runs"),
            ("/ledger/buffered_bytes", json!(100), Blind, "rules wait"),
            ("/rules/refused_files", json!(2), Degraded, "2 rule files rejected"),
            ("/rules/refused_exceptions", json!(1), Degraded, "1 exceptions invalid"),
            (
                "/lanes/0/source/hooks/0/state",
                json!("not_firing"),
                Degraded,
                "hook exec is attached and silent",
            ),
            ("/ledger/alarms", json!(["cannot be written"]), Degraded, "cannot be written"),
            ("/sinks/0/alarms", json!(["cannot be reached"]), Degraded, "sink siem: cannot be reached"),
            ("/lanes/0/source/alarms", json!({"/t": "cannot be read"}), Degraded, "/t: cannot be read"),
        ] {
            let found = Health::of(&changed(pointer, value));
            assert_eq!(found.health, health, "{pointer}: {found:?}");
            assert!(
                why.is_empty() == found.why.is_empty() && found.why.join("\n").contains(why),
                "{found:?}"
            );
        }
    }
}
