//! The page about the keys of `lapwing status --json`.

use super::source::{Item, json_keys, members, table};

/// Descriptions of keys that the code builds as JSON, by section and key.
#[rustfmt::skip]
const DESCRIPTIONS: &[(&str, &str, &str)] = &[
    ("agent", "version", "Version of the agent."),
    ("agent", "pid", "Process id."),
    ("agent", "uptime_seconds", "Seconds since the start."),
    ("agent", "rules", "Counts of rule files, exceptions and rules: see below."),
    ("agent", "ledger", "The alert log and the store: see below."),
    ("agent", "sinks", "A list of sinks: see below."),
    ("agent", "lanes", "A list of lanes: see below."),
    ("agent", "lanes_not_responding", "Names of lanes that did not answer within 750 ms."),
    ("agent", "budgets", "Memory limits of the control socket: `name`, `bytes`, `bytes_max`, `evicted`."),
    ("rules", "loaded", "Rules that were loaded."),
    ("rules", "enabled", "Rules that run."),
    ("rules", "refused_files", "Rule files that were rejected."),
    ("rules", "refused_exceptions", "Exceptions that are invalid and not applied."),
    ("lane", "name", "Name of the lane."),
    ("lane", "rules", "Rules that run on the lane."),
    ("lane", "events", "Events that were evaluated."),
    ("lane", "alerts", "Alerts that were raised."),
    ("lane", "discarded", "Pieces of state that were evicted because a memory limit was reached."),
    ("lane", "reorder_buffer_overflow", "Events that were evaluated out of order because the reorder buffer was full."),
    ("lane", "sequence_bytes", "Memory of partial matches of sequences."),
    ("lane", "threshold_bytes", "Memory of threshold rules."),
    ("lane", "state_bytes", "Memory of all state of rules."),
    ("lane", "reorder_buffer_bytes", "Memory of events that wait to be reordered."),
    ("lane", "partial_matches_dropped", "Partial matches that were evicted."),
    ("lane", "suppressed", "Alerts that `max_signals` or a rule's suppression kept from being raised."),
    ("lane", "held_back", "The suppressed alerts of the current interval, by rule, user, program and destination."),
    ("lane", "evidence", "The evidence stage: see below."),
    ("lane", "learned_bytes", "Memory of learned terms and models."),
    ("lane", "exceptions", "A list of exceptions: `place`, `suppressed_by_exception`, `owner`, `expires`, `expired`."),
    ("lane", "source", "The source of the lane: see below."),
    ("evidence", "alerts_waiting", "Alerts that wait for their evidence."),
    ("evidence", "bytes_waiting", "Memory of these alerts."),
    ("evidence", "waited_ms_max", "Longest wait of an alert in this run, in milliseconds."),
    ("evidence", "hashed", "Files that were hashed."),
    ("evidence", "hash_cache_hits", "Hashes that were found in the cache."),
    ("evidence", "hash_cache_size", "Hashes in the cache."),
    ("evidence", "descriptors", "File descriptors that are held for alerts."),
    ("evidence", "hash_skipped", "Files that were not hashed, by reason."),
    ("cloudtrail", "lag_seconds", "Age of the newest event in seconds; trails deliver after about 300."),
    ("cloudtrail", "alarms", "Current faults, by place."),
    ("cloudtrail", "last_error", "The last fault, current or not."),
    ("sensor", "hooks", "A list of hooks: `name`, `state`, `method`, `reason`, `unseen`."),
    ("sensor", "records", "A list of record kinds: `name`, `seen`, `delivered`, `filtered`, `lost`, `filtered_to`."),
    ("sensor", "probe_recursion_misses", "Kernel program runs that were skipped because the program was already running on the processor."),
    ("sensor", "downtime", "The outage before this run: `from`, `to`."),
    ("sensor", "handover", "What was handed over by the previous run: `pid`, `records`, `lost`."),
    ("sensor", "malformed", "Records that could not be decoded."),
    ("sensor", "out_of_order", "Records that came too late to be reordered."),
    ("sensor", "self_connections_filtered", "Records of the agent's own connections, which are no events."),
    ("sensor", "already_delivered", "Records that the snapshot or the previous run has reported."),
    ("sensor", "tampered", "Interference with the sensor that lasts: sentences."),
    ("sensor", "files_changed", "Changes of the agent's files by an administrator that are not in effect yet."),
    ("sensor", "files", "The watch on the agent's files: `watched`, `unwatched`, `scans`, `hashed`, `overflows`."),
    ("sensor", "alarms", "Faults of the watch on the agent's files."),
    ("sensor", "tamperings", "Interferences in this run."),
    ("sensor", "tamperings_unlisted", "Interferences that are counted only."),
    ("sensor", "canary", "The self-test: `flights`, `failed`, `records`."),
    ("sensor", "connections", "Open connections in the table of owners."),
    ("sensor", "owner_table_full", "Connections that did not fit into the table of owners: their end is not reported."),
    ("sensor", "closes_without_owner", "Ends of connections without an entry in the table of owners."),
    ("sensor", "processes", "Processes in the process table."),
    ("sensor", "processes_alive", "Processes that are alive."),
    ("sensor", "processes_ended", "Processes that ended recently. Others are kept for their children."),
    ("sensor", "cgroups_evicted", "Control group paths that were evicted."),
    ("sensor", "processes_evicted", "Processes that were evicted for the memory limit."),
    ("sensor", "processes_shortened", "Processes whose arguments were shortened for the memory limit."),
    ("sensor", "processes_previous_dropped", "Former programs of processes that were dropped for the memory limit."),
    ("sensor", "processes_recovered_from_procfs", "Processes that were read from procfs after their records were lost."),
    ("sensor", "processes_expired_without_exit", "Processes that were removed because they ended without a record."),
    ("sensor", "budgets", "Memory limits: `name`, `bytes`, `bytes_max`, `evicted`."),
];

/// Keys of objects in a list or a part, which the row of the list names.
const INNER: [&str; 24] = [
    "bytes",
    "bytes_max",
    "delivered",
    "evicted",
    "expired",
    "expires",
    "failed",
    "filtered",
    "filtered_to",
    "flights",
    "from",
    "lost",
    "name",
    "owner",
    "pid",
    "place",
    "seen",
    "suppressed_by_exception",
    "to",
    "watched",
    "unwatched",
    "scans",
    "hashed",
    "overflows",
];

pub(super) fn page() -> String {
    let mut text = String::from(
        "# Status\n\nThe keys of `lapwing status --json`. Without `--json` the same is printed as an outline, with spaces in \
         place of underscores.\nCounters start at zero with each run, unless a row says otherwise. `lapwing status --health` \
         reduces all of it to a word.\n",
    );
    let mut section = |title: &str, intro: &str, table: String| {
        text.push_str(&format!("\n## {title}\n\n{intro}\n\n{table}"));
    };
    let head = ["key", "meaning"];
    section("The agent", "The outermost object.", table(head, &described("agent")));
    section("`rules`", "Rules and exceptions.", table(head, &described("rules")));
    section(
        "`lanes`",
        "Each lane has one source.",
        table(head, &built("lane", "agent/src/lane/status.rs", "fn status(&self) -> Json {")),
    );
    section(
        "`lanes[].evidence`",
        "The stage that completes alerts.",
        table(head, &built("evidence", "agent/src/evidence/mod.rs", "fn status(&self) -> Json {")),
    );
    section(
        "`lanes[].source` of the sensor",
        "The eBPF sensor of this host.",
        table(
            head,
            &built("sensor", "agent/src/sensor/status.rs", "fn status_json(&self) -> serde_json::Value {"),
        ),
    );
    let (_, counters) = members("agent/src/source/cloudtrail/status.rs", "\ncounters! {");
    section(
        "`lanes[].source` of CloudTrail",
        "The files and queues of AWS CloudTrail.",
        table(head, &counters.into_iter().chain(described("cloudtrail")).collect::<Vec<_>>()),
    );
    let (_, items) = members("agent/src/ledger/status.rs", "\npub(crate) struct LedgerReport {");
    section("`ledger`", "The alert log and the store.", table(head, &items));
    let (_, items) = members("agent/src/sink/status.rs", "\npub(crate) struct SinkReport {");
    section("`sinks`", "Each sink has one upstream.", table(head, &items));
    text
}

/// The described keys of a section.
fn described(section: &str) -> Vec<Item> {
    let rows = DESCRIPTIONS.iter().filter(|(of, ..)| *of == section);
    rows.map(|(_, name, doc)| Item { name: (*name).to_owned(), doc: (*doc).to_owned() }).collect()
}

/// The keys that a function builds, with their descriptions.
fn built(section: &str, file: &str, function: &str) -> Vec<Item> {
    let described = described(section);
    let mut items: Vec<Item> = Vec::new();
    for name in json_keys(file, function) {
        let doc = described.iter().find(|item| item.name == name).map(|item| item.doc.clone());
        let is_inner = doc.is_none() && INNER.contains(&name.as_str());
        if !is_inner && items.iter().all(|item| item.name != name) {
            items.push(Item { name, doc: doc.unwrap_or_else(|| "–".to_owned()) });
        }
    }
    items
}
