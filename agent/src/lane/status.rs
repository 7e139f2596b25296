//! The lane's part of `lapwing status`.

use std::sync::Arc;

use lapwing_engine::{Counters, Engine, Exception};
use serde_json::{Value as Json, json};

use super::{RuleView, Work};
use crate::{alert, clock};

/// Most rules with suppressed alerts that the status lists, and most rows of each.
const HELD_BACK_RULES_MAX: usize = 32;
const HELD_BACK_ROWS_MAX: usize = 5;

impl Work {
    /// The exceptions for this lane's rules, and how many alerts each has suppressed.
    fn exceptions(&self) -> Vec<Json> {
        let mut listed: Vec<(&Arc<Exception>, u64)> = Vec::new();
        for RuleView { engine, .. } in &self.lane.rule_views {
            let is_for_any = |exception: &Exception| engine.rules().any(|rule| exception.is_for(rule));
            for (exception, suppressed) in engine.exceptions().filter(|(exception, _)| is_for_any(exception))
            {
                match listed.iter_mut().find(|(known, _)| Arc::ptr_eq(known, exception)) {
                    Some((_, count)) => *count += suppressed,
                    None => listed.push((exception, suppressed)),
                }
            }
        }
        let now = clock::now();
        let exceptions = listed.into_iter().map(|(exception, suppressed)| {
            json!({
                "place": format!("{}:{}", exception.file, exception.line),
                "suppressed_by_exception": suppressed,
                "owner": exception.owner,
                "expires": exception.expires.map(|expires| expires.to_string()),
                "expired": exception.is_over(now),
            })
        });
        exceptions.collect()
    }

    /// The alerts that `max_signals` suppresses in the current time spans, by rule and by subject.
    fn held_back(&self) -> Vec<Json> {
        let engines = self.lane.rule_views.iter().map(|rule_view| &rule_view.engine);
        let rules = engines.flat_map(Engine::held_back).take(HELD_BACK_RULES_MAX);
        let rows = rules.flat_map(|(rule, _, rows)| {
            rows.into_iter().take(HELD_BACK_ROWS_MAX).map(|row| {
                let mut json = alert::cause::held_back(&row);
                json["rule"] = rule.name.as_str().into();
                json
            })
        });
        rows.collect()
    }

    /// The lane's part of `lapwing status`.
    pub(super) fn status(&self) -> Json {
        let engines = || self.lane.rule_views.iter().map(|rule_view| &rule_view.engine);
        let sum = |of: fn(&Counters) -> u64| engines().map(|engine| of(&engine.counters())).sum::<u64>();
        json!({
            "name": self.lane.name,
            "rules": engines().map(|engine| engine.rules().count()).sum::<usize>(),
            "events": self.events,
            "alerts": self.alerts,
            "discarded": sum(|counters| counters.discarded),
            "reorder_buffer_overflow": sum(|counters| counters.released_early),
            "sequence_bytes": sum(|counters| counters.sequence_bytes),
            "threshold_bytes": sum(|counters| counters.threshold_bytes),
            "state_bytes": sum(|counters| counters.state_bytes),
            "reorder_buffer_bytes": sum(|counters| counters.unordered_bytes),
            "partial_matches_dropped": sum(|counters| counters.dropped),
            "suppressed": sum(|counters| counters.suppressed),
            "held_back": self.held_back(),
            "evidence": self.evidence.status(),
            "learned_bytes": sum(|counters| counters.learned_bytes),
            "exceptions": self.exceptions(),
            "source": self.lane.source.status(),
        })
    }
}
