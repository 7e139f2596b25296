//! Which act each alert belongs to: scripts lie in folders that have the acts' names, and ancestors' arguments show them.

use std::borrow::Cow;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::crew::Turn;
use super::stage::Stage;
use crate::bench::agent::Agent;

/// Who wrote the rules that are not ours alone.
const OTHERS: &str = "Elastic";

/// An alert, with what it belongs to.
pub(super) struct Alert {
    pub(super) rule: String,
    /// Whether the rule is ours alone.
    pub(super) is_ours: bool,
    /// The act, or the server, whose script is the nearest ancestor; nothing where none is.
    pub(super) act: Option<String>,
    /// The acts that were being done at that time.
    pub(super) during: Vec<String>,
    /// Why it may be there.
    pub(super) may_alert: Option<String>,
    /// Whether it is about these hosts at all. The agent sees the whole machine.
    pub(super) is_of_the_work: bool,
    /// The names of the process and its ancestors, the nearest first.
    pub(super) chain: String,
    /// What happened, in a sentence.
    pub(super) reason: String,
}

/// Reads all alerts.
pub(super) fn read(agent: &Agent, stage: &Stage, turns: &[Turn]) -> Result<Vec<Alert>> {
    let (networks, folder) = (stage.networks()?, stage.folder_name());
    let alert = |alert: &lapwing_stage::Alert| {
        let document = &alert.document;
        let act = nearest(document, &folder);
        let time = alert.text("/lapwing/alert/original_time").parse::<Timestamp>();
        let is_then = |turn: &&Turn| time.as_ref().is_ok_and(|time| (turn.start..=turn.end).contains(time));
        let during: Vec<_> = turns.iter().filter(is_then).map(|turn| turn.act.clone()).collect();
        let network = document.pointer("/lapwing/process/namespace/net").and_then(Json::as_u64);
        let named = turns.iter().find(|turn| act.as_deref() == Some(&turn.act));
        Alert {
            rule: alert.rule().to_owned(),
            is_ours: !is_by_others(document),
            may_alert: named.and_then(|turn| turn.may_alert.clone()),
            is_of_the_work: act.is_some() || network.is_some_and(|network| networks.contains(&network)),
            act,
            during,
            chain: chain(document),
            reason: alert.text("/event/reason").to_owned(),
        }
    };
    Ok(agent.alerts()?.iter().map(alert).collect())
}

fn is_by_others(document: &Json) -> bool {
    let authors = document.pointer("/rule/author").and_then(Json::as_array);
    authors.is_some_and(|authors| authors.iter().any(|author| author == OTHERS))
}

/// The act whose script is the nearest: the process's own arguments, then those of its ancestors, the nearest first, then
/// the events that the alert is made of.
fn nearest(document: &Json, folder: &str) -> Option<String> {
    let ancestors = document.pointer("/lapwing/alert/ancestors").and_then(Json::as_array);
    let events = document.pointer("/lapwing/alert/events").and_then(Json::as_array);
    let ancestors = ancestors.into_iter().flatten().map(|ancestor| &ancestor["process"]);
    let events = events.into_iter().flatten().map(|event| &event["process"]);
    let process = &document["process"];
    let own = [&process["args"], &process["parent"]["args"]].into_iter();
    let mut all = own.chain(ancestors.map(|process| &process["args"])).chain(events);
    all.find_map(|part| marked(&text(part), folder))
}

/// The names of the process and its ancestors, the nearest first.
fn chain(document: &Json) -> String {
    let ancestors = document.pointer("/lapwing/alert/ancestors").and_then(Json::as_array);
    let ancestors = ancestors.into_iter().flatten().map(|ancestor| &ancestor["process"]["name"]);
    let names = [&document["process"]["name"]].into_iter().chain(ancestors);
    // A program that has several names is shown by its first, its file's.
    let names: Vec<_> = names.map(|name| text(name.get(0).unwrap_or(name))).collect();
    names.join(" < ")
}

fn text(value: &Json) -> Cow<'_, str> {
    value.as_str().map_or_else(|| value.to_string().into(), Cow::from)
}

/// The act or server whose folder, in that of this run, a text names.
fn marked(text: &str, folder: &str) -> Option<String> {
    let name = |rest: &str| -> String {
        rest.chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '-').collect()
    };
    let (_, rest) = text.split_once(folder)?;
    let rest = rest.strip_prefix('/')?;
    if let Some(rest) = rest.strip_prefix("acts/") {
        return Some(name(rest));
    }
    rest.strip_prefix("servers/").map(|rest| format!("server {}", name(rest)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{is_by_others, nearest};

    #[test]
    fn an_alert_belongs_to_the_nearest_act() {
        for (document, wanted) in [
            (json!({}), None),
            (json!({"process": {"args": ["cat", "/tmp/lapwing-noise-a1/files/x"]}}), None),
            (json!({"process": {"args": ["bash", "/tmp/lapwing-noise-b2/acts/ssh-tty/run"]}}), None),
            (
                json!({"process": {"args": ["bash", "/tmp/lapwing-noise-a1/acts/ssh-tty/run"]}}),
                Some("ssh-tty"),
            ),
            (
                json!({"process": {"args": ["sh"], "parent": {"args": ["sh", "/t/lapwing-noise-a1/servers/web/run"]}}}),
                Some("server web"),
            ),
            (
                json!({"lapwing": {"alert": {"ancestors": [
                    {"process": {"args": ["sshd"]}},
                    {"process": {"args": ["bash", "/t/lapwing-noise-a1/acts/near/run"]}},
                    {"process": {"args": ["bash", "/t/lapwing-noise-a1/acts/far/run"]}},
                ]}}}),
                Some("near"),
            ),
        ] {
            assert_eq!(nearest(&document, "lapwing-noise-a1").as_deref(), wanted, "{document}");
        }
    }

    #[test]
    fn a_rule_of_others_has_one_of_them_among_its_authors() {
        assert!(is_by_others(&json!({"rule": {"author": ["Elastic", "Lapwing"]}})));
        assert!(!is_by_others(&json!({"rule": {"author": ["Lapwing"]}})));
    }
}
