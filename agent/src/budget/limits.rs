//! Every limit: what happens beyond it, and where that is visible. `docs/limits.md` is generated from this table, with the
//! values of the sources: `UPDATE_EXPECT=1 cargo test -p lapwing limits`.
//!
//! A limit is a constant whose name ends in `_MAX`, or a setting. A new one needs a row in [`LIMITS`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use bytesize::ByteSize;
use lapwing_engine::detect::Limits;

use self::Held::{Apart, Each, Kernel, Passing, Times};

/// A limit.
struct Limit {
    /// The file of its constant, or `setting`.
    place: &'static str,
    name: &'static str,
    held: Held,
    /// What happens beyond it.
    beyond: &'static str,
    /// Where that is counted or reported.
    seen: &'static str,
}

/// The part of the agent's memory that a limit bounds.
#[derive(Clone, Copy)]
enum Held {
    /// The bytes may be held all the time, this many times, for example by each lane.
    Times(u64),
    /// This many objects may be held all the time, each of up to this many bytes.
    Each(u64),
    /// The same in the kernel.
    Kernel(u64),
    /// The bytes may be held while one object is processed. The largest of these limits counts.
    Passing,
    /// No memory of the running agent: a part of another limit, a number, a time, disk space, a command, or a file of the
    /// administrator.
    Apart,
}

const fn limit(
    place: &'static str,
    name: &'static str,
    held: Held,
    beyond: &'static str,
    seen: &'static str,
) -> Limit {
    Limit { place, name, held, beyond, seen }
}

const SETTING: &str = "setting";
const STATUS: &str = "`lapwing status`";
const LOG: &str = "the agent's log";
const COMMAND: &str = "the output of the command";
const CHECK: &str = "`lapwing check`";
const EVENT: &str = "a mark in the event";

#[rustfmt::skip]
const LIMITS: &[Limit] = &[
    // What a user's processes choose.
    limit("agent-ebpf/common/src/lib.rs", "ARGS_BYTES_MAX", Apart, "arguments are cut", EVENT),
    limit("agent-ebpf/common/src/lib.rs", "PATHS_BYTES_MAX", Apart, "paths and the environment are cut", EVENT),
    limit("agent-ebpf/common/src/lib.rs", "RECORD_BYTES_MAX", Apart, "the sum of the two", "–"),
    limit("agent-ebpf/common/src/lib.rs", "TEXT_BYTES_MAX", Apart, "the text is cut", EVENT),
    limit("agent-ebpf/common/src/lib.rs", "NAMES_BYTES_MAX", Apart, "names in the middle of the path are missing", EVENT),
    limit("agent-ebpf/common/src/lib.rs", "UPPER_NAMES_MAX", Apart, "further names are missing", EVENT),
    limit("agent-ebpf/common/src/lib.rs", "UPPER_NAMES_BYTES_MAX", Apart, "further names are missing", EVENT),
    limit("agent-ebpf/common/src/lib.rs", "ENVIRONMENT_BYTES_MAX", Apart, "further variables are omitted", EVENT),
    limit("agent-ebpf/common/src/lib.rs", "STEPS_MAX", Apart, "the path or the environment is cut", EVENT),
    limit("agent-ebpf/common/src/lib.rs", "VARIABLE_BYTES_MAX", Apart, "the variable is cut", EVENT),
    limit("agent-ebpf/common/src/lib.rs", "WANTED_MAX", Apart, "further names of variables are rejected", "an error at the start"),
    limit("agent-ebpf/common/src/lib.rs", "OBJECTS_MAX", Kernel(80), "commands on further maps and links are not reported", "–"),
    limit(SETTING, "[sensor] ring_size, once and a half", Kernel(1), "records are lost, those of programs and connections last", "*Telemetry lost*"),
    limit("agent/src/sensor/start.rs", "FLOWS_MAX", Kernel(104), "a destination is reported again", "–"),
    limit("agent/src/sensor/start.rs", "CONNECTING_MAX", Kernel(80), "the oldest is evicted; its datagrams have no source", "–"),
    limit("agent/src/sensor/ring.rs", "BUFFER_BYTES_MAX", Times(2), "the rest stays in the rings", "–"),
    limit("agent/src/sensor/ring.rs", "SHARE_BYTES_MAX", Apart, "a part of `BUFFER_BYTES_MAX`", "–"),
    limit("agent/src/sensor/process.rs", "PROCESSES_BYTES_MAX", Times(1), "for the user with the most: former programs are evicted first, then long arguments except their start, ended processes, living ones", "`budgets`, `processes_evicted`, `processes_shortened`, `processes_previous_dropped` in `lapwing status`"),
    limit("agent/src/sensor/process.rs", "BLOCKS_BYTES_MAX", Times(1), "cached blocks are built again", "`budgets` in `lapwing status`"),
    limit("agent/src/sensor/process/linger.rs", "LINGERING_MAX", Apart, "of the user who has most, the process that ended first is kept for its children only", "`processes_ended` in `lapwing status`"),
    limit("agent/src/sensor/process.rs", "ANCESTORS_MAX", Apart, "further ancestors are not reported", "–"),
    limit("agent-ebpf/common/src/lib.rs", "CGROUPS_MAX", Kernel(80), "the group that was unused for longest is evicted, and sent or looked up again", "`cgroups_evicted` in `lapwing status`"),
    limit("agent/src/sensor/groups.rs", "GROUPS_BYTES_MAX", Times(1), "the same", "`cgroups_evicted` in `lapwing status`"),
    limit("agent/src/sensor/image.rs", "SHORT_ARGS_BYTES_MAX", Apart, "the rest of evicted arguments", EVENT),
    limit("agent/src/sensor/inspect.rs", "ARGS_BYTES_MAX", Passing, "arguments are cut", EVENT),
    limit("agent/src/sensor/inspect.rs", "WAIT_MAX", Apart, "arguments are missing, of the user's further processes too until the thread returns", EVENT),
    limit("agent/src/sensor/inspect.rs", "WAITED_MAX", Apart, "further arguments of the user's processes are missing", EVENT),
    limit("agent/src/sensor/inspect.rs", "USERS_MAX", Each(40), "arguments of further users' processes are missing", EVENT),
    limit("agent/src/sensor/inspect.rs", "HUNG_MAX", Apart, "arguments of further processes are missing", EVENT),
    limit("agent/src/sensor/snapshot.rs", "ABOUT_BYTES_MAX", Passing, "the process is not known from `/proc`", "–"),
    limit("agent/src/sensor/snapshot.rs", "SNAPSHOT_BYTES_MAX", Passing, "only the start of further long arguments is kept", EVENT),
    limit("agent/src/sensor/actor.rs", "USER_NAMESPACES_MAX", Apart, "the user who is charged is unknown", "–"),
    limit("agent/src/sensor/owner.rs", "OWNERS_BYTES_MAX", Times(1), "for a user with half of what others leave, the end of the connection is not reported", "`owner_table_full` in `lapwing status`"),
    limit("agent/src/sensor/loss.rs", "WINDOWS_MAX", Each(32), "the oldest time of losses is evicted", "–"),
    limit("agent/src/sensor/context.rs", "HOLDERS_MAX", Apart, "older children are not checked", "`partial` in the alert"),
    limit("agent/src/sensor/process/peers.rs", "PEERS_MAX", Apart, "the last one stays known after it closed", "–"),
    limit("agent/src/sensor/process/entered.rs", "NAMESPACES_MAX", Apart, "the one learned first is evicted, and learned again with the next program that is started in it from outside", "–"),
    limit("agent/src/sensor/script_lookup.rs", "STEPS_MAX", Apart, "the path of the script satisfies no exclusion", "`script.mark` in the event"),
    limit("agent/src/sensor/script_lookup.rs", "ROOTS_MAX", Apart, "the script is not searched through further ancestors", "`script.mark` in the event"),
    limit("agent/src/sensor/context.rs", "WITNESSES_MAX", Apart, "the file is not searched through further processes", "`hash_skipped` in the alert"),
    limit("agent/src/sensor/thread.rs", "THREADS_MAX", Apart, "further threads are not checked", "`hash_skipped` in the alert"),
    limit("agent/src/program/descriptor.rs", "DESCRIPTORS_MAX", Apart, "the file is searched by its path only", "`hash_skipped` in the alert, `evidence` in `lapwing status`"),
    limit("agent/src/evidence/mod.rs", "WAIT_MAX", Apart, "the alert is written without the hash", "`hash_skipped` in the alert, `evidence` in `lapwing status`"),
    limit("agent/src/evidence/mod.rs", "FILE_BYTES_MAX", Apart, "the file is not hashed", "`hash_skipped` in the alert, `evidence` in `lapwing status`"),
    limit("agent/src/evidence/mod.rs", "ALERT_BYTES_MAX", Apart, "further files are not hashed", "`hash_skipped` in the alert, `evidence` in `lapwing status`"),
    limit("agent/src/evidence/mod.rs", "DELIVERIES_MAX", Apart, "the lane waits", "`evidence` in `lapwing status`"),
    limit("agent/src/evidence/mod.rs", "WAITING_BYTES_MAX", Times(2), "the lane waits", "`evidence` in `lapwing status`"),
    limit("agent/src/evidence/mod.rs", "ALERTS_WAITING_MAX", Apart, "no alert waits for its hashes", "`hash_skipped` in the alert, `evidence` in `lapwing status`"),
    limit("agent/src/evidence/mod.rs", "COMMIT_BYTES_MAX", Passing, "the rest is committed next", "–"),
    limit("agent/src/evidence/mod.rs", "READERS_MAX", Apart, "further files are read next", "`hash_skipped` in the alert, `evidence` in `lapwing status`"),
    limit("agent/src/evidence/share.rs", "SHARED_BYTES_MAX", Apart, "files of a user with half of what others leave are not hashed", "`hash_skipped` in the alert, `evidence` in `lapwing status`"),
    limit("agent/src/evidence/share.rs", "USERS_MAX", Each(2 * 16), "files of further users are not hashed", "`hash_skipped` in the alert, `evidence` in `lapwing status`"),
    limit("agent/src/evidence/cache.rs", "CACHE_BYTES_MAX", Times(2), "the hash that was unused for longest is evicted", "`evidence` in `lapwing status`"),
    limit("agent/src/evidence/cache.rs", "HASHES_MAX", Apart, "a part of `CACHE_BYTES_MAX`", "`evidence` in `lapwing status`"),
    limit("agent/src/digest.rs", "CACHED_BYTES_MAX", Apart, "the file leaves the page cache", "–"),
    limit("agent-ebpf/common/src/lib.rs", "SHARES_MAX", Kernel(3 * 104), "the actor that was not charged for longest begins at zero again; three maps", "–"),
    limit("agent/src/sensor/shares.rs", "USERS_MAX", Apart, "the records of further users stay in the sum", "*Telemetry lost*"),
    limit("agent/src/alert/lost.rs", "USERS_MAX", Each(64), "the records of further users stay in the sum", "*Telemetry lost*"),
    limit("agent/src/sensor/decode/capabilities.rs", "LISTS_MAX", Each(2048), "the list is built again", "–"),
    limit("agent/src/sensor/canary.rs", "FAILED_MAX", Apart, "the hook is reported", "*Sensor tampered with*"),
    limit("agent/src/sensor/canary.rs", "FLIGHT_NANOS_MAX", Apart, "the self-test has no result", "–"),
    limit("agent/src/sensor/canary.rs", "RECORDS_MAX", Each(8 << 10), "further records are not checked", "–"),
    limit("agent/src/sensor/canary.rs", "RECORD_BYTES_MAX", Apart, "the record is not checked", "–"),
    limit("agent/src/sensor/tamper.rs", "TROUBLES_MAX", Each(12 << 10), "of each of six kinds; further faults are counted", "`tampered`, `tamperings_unlisted` in `lapwing status`"),
    limit("agent/src/sensor/tamper.rs", "REASON_BYTES_MAX", Apart, "the reason is cut", "–"),
    limit("agent/src/sensor/tamper.rs", "REPORT_BYTES_MAX", Apart, "further files are in `lapwing status` only", "*Sensor tampered with*, *Sensor files changed*"),
    limit("agent/src/integrity/watch.rs", "WATCHED_BYTES_MAX", Times(1), "further files are not watched", "`files` in `lapwing status`"),
    limit("agent/src/integrity/watch.rs", "FOLDERS_MAX", Each(256), "files of further folders are checked every 5 s", "`alarms` in `lapwing status`"),
    limit("agent/src/integrity/watch.rs", "TRIES_MAX", Apart, "a file that changes all the time is reported without its hash", "*Sensor tampered with*"),
    limit("agent/src/integrity/content.rs", "FILE_BYTES_MAX", Apart, "the file is reported without its hash", "*Sensor tampered with*"),
    limit("agent/src/integrity/content.rs", "SECOND_BYTES_MAX", Apart, "the rest is read later", "–"),
    limit("agent/src/integrity/mod.rs", "LOTS_MAX", Apart, "scanning stops until the sensor takes them", "–"),
    limit("agent/src/integrity/mod.rs", "CHANGES_MAX", Each(16 << 10), "changes in a batch; the others are in the next", "–"),
    limit("agent/src/trace.rs", "LOSSES_MAX", Apart, "further losses of the alert log are not reported", "–"),
    limit("agent/src/integrity/written.rs", "ENTRIES_MAX", Apart, "a renamed log beyond them is not found, and reported", "*Sensor tampered with*"),
    limit("agent/src/integrity/tree.rs", "ENTRIES_MAX", Apart, "further files are not watched", "–"),
    limit("agent/src/integrity/holders.rs", "PROCESSES_MAX", Apart, "further processes are not checked", "`by an unknown process`"),
    limit("agent/src/integrity/holders.rs", "DESCRIPTORS_MAX", Apart, "further descriptors are not checked", "`by an unknown process`"),
    limit("agent/src/integrity/holders.rs", "HOLDERS_MAX", Apart, "further processes are not named", "–"),
    limit("agent/src/sensor/handover.rs", "STATE_BYTES_MAX", Passing, "the next run starts without the state of this one", LOG),
    limit("agent/src/sensor/btf.rs", "DEPTH_MAX", Apart, "the type is not resolved", "an error at the start"),
    limit("agent/src/sensor/start.rs", "BTF_BYTES_MAX", Apart, "the sensor does not start", "an error at the start"),
    limit("agent/src/sensor/stack.rs", "STACK_BYTES_MAX", Apart, "the build fails", "a test"),
    limit("agent/src/sensor/names.rs", "FILE_BYTES_MAX", Passing, "users or groups have no names", "–"),
    limit("agent/src/sensor/names.rs", "NAMES_MAX", Each(2 * 200), "further users or groups have no names", "–"),
    limit("agent/src/bounded.rs", "SETTING_BYTES_MAX", Passing, "the file is rejected", "an error at the start"),
    limit("agent/src/bounded.rs", "HOST_FILE_BYTES_MAX", Passing, "the content of the file is unknown", LOG),
    limit("agent/src/store/lock.rs", "HOLDER_BYTES_MAX", Apart, "the rest is not read", "–"),
    // Events on their way to people.
    limit("agent/src/control/server.rs", "REQUEST_BYTES_MAX", Passing, "the request is truncated, and invalid", "an answer"),
    limit("agent/src/control/server.rs", "CLIENTS_MAX", Apart, "the connection is closed", "the command"),
    limit("agent/src/control/server.rs", "SUBSCRIBERS_MAX", Apart, "the request is rejected", "the command"),
    limit("agent/src/control/server.rs", "CLIENT_BYTES_MAX", Apart, "events are dropped for the client", "a line among the events"),
    limit("agent/src/control/server.rs", "CLIENTS_BYTES_MAX", Times(1), "events are dropped for the client", "`budgets` in `lapwing status`, and a line among the events of the client"),
    limit("agent/src/control/server.rs", "EVENTS_AT_ONCE_MAX", Apart, "the rest is written next", "–"),
    // What rules remember.
    limit(SETTING, "state_bytes_max", Times(1), "the oldest state of the user with the most in the rule is evicted", "`discarded` in `lapwing status`, a mark in the rule's alerts, *Telemetry lost*"),
    limit(SETTING, "sequence_bytes_max", Apart, "a part of `state_bytes_max`, per rule", "`discarded` in `lapwing status`"),
    limit(SETTING, "threshold_bytes_max", Apart, "a part of `state_bytes_max`, per rule", "`discarded` in `lapwing status`"),
    limit(SETTING, "suppression_bytes_max", Apart, "a part of `state_bytes_max`, per rule", "`discarded` in `lapwing status`"),
    limit(SETTING, "held_back_bytes_max", Apart, "a part of `state_bytes_max`, per rule", "`lapwing status`"),
    limit(SETTING, "lineage_bytes_max", Apart, "a part of `state_bytes_max`, per rule", "`discarded` in `lapwing status`"),
    limit(SETTING, "unordered_bytes_max", Times(1), "the earliest is evaluated at once", "`reorder_buffer_overflow` in `lapwing status`"),
    limit(SETTING, "alerts_max", Apart, "further alerts of the executable are suppressed, and reported together", STATUS),
    limit("agent/engine/src/detect/actor.rs", "TEXT_BYTES_MAX", Apart, "the text is cut", "–"),
    limit("agent/engine/src/detect/held_back.rs", "ROWS_MAX", Apart, "further rows are counted", "the alert"),
    limit("agent/engine/src/detect/sequence.rs", "CHAINS_BYTES_MAX", Apart, "the oldest partial match of a key is evicted", "`discarded` in `lapwing status`"),
    limit("agent/engine/src/detect/share/tree.rs", "NODES_MAX", Apart, "further groups and executables count as one", "–"),
    limit("agent/engine/src/detect/share/tree.rs", "USERS_MAX", Apart, "further users count as one", "–"),
    limit("agent/src/lane/status.rs", "HELD_BACK_RULES_MAX", Apart, "further rules are not shown", STATUS),
    limit("agent/src/lane/status.rs", "HELD_BACK_ROWS_MAX", Apart, "further rows are not shown", STATUS),
    limit(SETTING, "terms_bytes_all_max", Times(1), "the oldest terms of the user and program with the most in the rule are evicted", "`discarded`, `learned_bytes` in `lapwing status`"),
    limit(SETTING, "terms_bytes_max", Apart, "a part of it, per rule", "`discarded`, `learned_bytes` in `lapwing status`"),
    limit(SETTING, "job_bytes_all_max", Times(1), "further values of an owner with its share are not learned; the least learned are evicted", "`discarded`, `learned_bytes` in `lapwing status`"),
    limit(SETTING, "job_bytes_max", Apart, "a part of it, for a job's open time spans, and again for its model", "`discarded`, `learned_bytes` in `lapwing status`"),
    limit("agent/engine/src/detect/brief.rs", "TEXT_BYTES_MAX", Apart, "the beginning and a hash of the text are kept", "–"),
    limit("agent/engine/src/detect/brief.rs", "VALUE_BYTES_MAX", Apart, "the value is cut in the example of a time span", "`lapwing.event.cut` in the alert"),
    limit("agent/engine/src/detect/buckets.rs", "EXAMPLE_BYTES_MAX", Apart, "further fields are omitted from the example", "`lapwing.event.cut` in the alert"),
    limit("agent/engine/src/detect/buckets.rs", "ROW_BYTES_MAX", Apart, "the row of an earlier version is dropped", "`discarded` in `lapwing status`"),
    limit("agent/engine/src/detect/buckets.rs", "REFUSED_MAX", Apart, "further rows for which there is no room are not read", "`discarded` in `lapwing status`"),
    limit("agent/src/pipeline/restored.rs", "BYTES_MAX", Apart, "rows that are shortened at the start are handed over", "–"),
    limit("agent/src/store/trim.rs", "ROW_BYTES_MAX", Apart, "the row is not kept", "`state_rows_dropped` in `lapwing status`"),
    limit("agent/src/store/trim.rs", "SCOPE_BYTES_MAX", Apart, "on disk, of a rule, at the start: its largest rows are dropped", "`state_rows_dropped` in `lapwing status`"),
    limit("agent/src/store/trim.rs", "SCOPE_ROWS_MAX", Apart, "on disk, of a rule, at the start: its largest rows are dropped", "`state_rows_dropped` in `lapwing status`"),
    limit("agent/src/store/open.rs", "CHECKED_BYTES_MAX", Apart, "at the start alerts that wait in a larger store are not checked for damage", "the store's alarm in `lapwing status` when they are read"),
    limit("agent/src/store/trim.rs", "STATE_BYTES_MAX", Apart, "on disk, of all, at the start: the largest rows of each are dropped", "`state_rows_dropped` in `lapwing status`"),
    limit("agent/engine/src/detect/key.rs", "JOIN_KEYS_MAX", Apart, "further combinations of values take no part", "–"),
    limit("agent/engine/src/detect/indicators.rs", "ENRICHMENTS_MAX", Apart, "further indicators are not reported", "–"),
    limit("agent/engine/src/detect/detection.rs", "PROBABILITY_MAX", Apart, "a threshold of the model", "–"),
    limit("agent/engine/src/detect/threshold.rs", "BUCKETS_OF_EVENT_MAX", Apart, "the event is not counted in further buckets", "–"),
    limit("agent/engine/src/detect/threshold.rs", "COUNTED_MAX", Apart, "the oldest time is evicted, unless the rule needs more", "–"),
    limit("agent/engine/src/detect/naive.rs", "COMBINATIONS_MAX", Apart, "further combinations of values are not tried", "–"),
    limit("agent/engine/src/detect/sequence.rs", "CHAINS_MAX", Apart, "the oldest partial match of a key is evicted", "`discarded` in `lapwing status`"),
    limit("agent/engine/src/detect/new_terms.rs", "TERMS_OF_EVENT_MAX", Apart, "further terms of the event are not learned", "–"),
    limit("agent/engine/src/detect/matcher/field.rs", "TABLE_BYTES_MAX", Apart, "texts of the field are matched without the table", "–"),
    limit("agent/engine/src/detect/matcher/class.rs", "CLASSES_MAX", Apart, "events are divided into fewer classes", "–"),
    limit("agent/engine/src/detect/matcher/recent.rs", "TEXTS_MAX", Each(64 * 32 * 2), "an earlier text is evaluated again; a field each", "–"),
    limit("agent/engine/src/detect/matcher/recent.rs", "TEXTS_BYTES_MAX", Times(32 * 2), "all texts of the field are evaluated again", "–"),
    limit("agent/engine/src/detect/matcher/recent.rs", "LISTS_MAX", Each(1100 * 8), "an earlier list is evaluated again; a field each", "–"),
    limit("agent/engine/src/detect/matcher/recent.rs", "LIST_BYTES_MAX", Apart, "the list is evaluated each time", "–"),
    limit("agent/engine/src/detect/matcher/recent.rs", "TEXT_BYTES_MAX", Apart, "the text is evaluated each time", "–"),
    limit("agent/engine/src/detect/matcher/memory.rs", "LISTS_MAX", Each(3 << 10), "an earlier list of fields is evaluated again", "–"),
    limit("agent/engine/src/detect/matcher/memory.rs", "KINDS_MAX", Each(6 << 10), "the fields of a list are searched again", "–"),
    // Documents of events and rules.
    limit("agent/engine/src/event/json.rs", "DEPTH_MAX", Apart, "the document is rejected", "an error"),
    limit("agent/engine/src/event/schema.rs", "FIELDS_MAX", Apart, "further fields of rules are rejected", CHECK),
    limit("agent/engine/src/event/schema.rs", "DEFINED_MAX", Apart, "further fields of rules are rejected", CHECK),
    limit("agent/engine/src/lang/mod.rs", "QUERY_BYTES_MAX", Apart, "the query is rejected", CHECK),
    limit("agent/engine/src/lang/mod.rs", "NESTING_MAX", Apart, "the query is rejected", CHECK),
    limit("agent/engine/src/lang/mod.rs", "STAGES_MAX", Apart, "the query is rejected", CHECK),
    limit("agent/engine/src/lang/mod.rs", "SAMPLE_STAGES_MAX", Apart, "the query is rejected", CHECK),
    limit("agent/engine/src/lang/mod.rs", "DIAGNOSTICS_MAX", Apart, "further faults are not reported", CHECK),
    limit("agent/engine/src/lang/syntax/eql/parser.rs", "LIST_MAX", Apart, "the query is rejected", CHECK),
    limit("agent/engine/src/lang/format/mod.rs", "LINE_CHARACTERS_MAX", Apart, "the line is broken", "–"),
    limit("agent/engine/src/lang/function.rs", "ARGUMENTS_MAX", Apart, "the query is rejected", CHECK),
    limit("agent/engine/src/lang/function.rs", "TEXT_BYTES_MAX", Passing, "the result is null", "–"),
    limit("agent/engine/src/lang/lower/lineage.rs", "SUBQUERIES_MAX", Apart, "the query is rejected", CHECK),
    limit("agent/engine/src/lang/lower/lint/reach.rs", "PAIRS_MAX", Apart, "the rest is not checked", "–"),
    limit("agent/engine/src/lang/lower/lint/reach.rs", "GIVEN_MAX", Apart, "the rest is not checked", "–"),
    limit("agent/engine/src/lang/regex/compile.rs", "CACHE_BYTES_MAX", Apart, "states are built again", "–"),
    limit("agent/engine/src/lang/regex/mod.rs", "REGEX_LENGTH_MAX", Apart, "the pattern is rejected", CHECK),
    limit("agent/engine/src/lang/regex/mod.rs", "REGEX_BYTES_MAX", Apart, "the pattern is rejected", CHECK),
    limit("agent/engine/src/lang/regex/mod.rs", "REGEXES_BYTES_MAX", Apart, "a part of the memory at rest: further patterns are rejected", CHECK),
    limit("agent/engine/src/lang/regex/mod.rs", "REGEX_STATES_MAX", Apart, "the pattern is rejected", CHECK),
    limit("agent/engine/src/lang/regex/parser.rs", "REPEAT_MAX", Apart, "the pattern is rejected", CHECK),
    limit("agent/engine/src/lang/regex/automaton.rs", "WORK_MAX", Apart, "the pattern is rejected", CHECK),
    limit("agent/engine/src/lang/regex/automaton.rs", "TRANSITIONS_MAX", Apart, "the pattern is rejected", CHECK),
    limit("agent/engine/src/rule/mod.rs", "FILE_BYTES_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/engine/src/rule/load.rs", "MAX_SIGNALS_MAX", Apart, "the setting is lowered", CHECK),
    limit("agent/engine/src/rule/load/kinds.rs", "TERM_FIELDS_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/engine/src/rule/load/kinds.rs", "THRESHOLD_FIELDS_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/engine/src/rule/load/kinds.rs", "THRESHOLD_VALUE_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/engine/src/rule/load/kinds.rs", "CARDINALITY_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/engine/src/rule/load/kinds.rs", "JOBS_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/engine/src/rule/load/alerting.rs", "GROUP_FIELDS_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/engine/src/rule/load/alerting.rs", "DURATION_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/engine/src/rule/load/filters.rs", "NESTING_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/engine/src/rule/load/threat.rs", "ENTRIES_MAX", Apart, "the rule is rejected", CHECK),
    limit("agent/src/rules.rs", "FILES_MAX", Apart, "further files are not read", LOG),
    limit("agent/src/rules.rs", "BYTES_MAX", Apart, "at the start: further files are not read", LOG),
    limit("agent/src/folder.rs", "DEPTH_MAX", Apart, "deeper folders are not scanned", LOG),
    limit("agent/src/folder.rs", "STRAYS_MAX", Apart, "further skipped entries are counted", LOG),
    limit("agent/src/indicators.rs", "INDICATORS_MAX", Apart, "further indicators are not read", LOG),
    limit("agent/src/indicators.rs", "INDICATORS_BYTES_MAX", Apart, "further indicators are not read", LOG),
    limit("agent/src/indicators.rs", "FILES_MAX", Apart, "further files are not read", LOG),
    limit("agent/src/indicators.rs", "PROBLEMS_MAX", Apart, "further problems are counted", LOG),
    limit("agent/src/indicators.rs", "LINE_BYTES_MAX", Apart, "the line is rejected", LOG),
    // Alerts.
    limit("agent/src/alert/reason.rs", "COMMAND_LINE_MAX", Apart, "the command line is cut", "an ellipsis"),
    limit("agent/src/alert/cut.rs", "ALERT_BYTES_MAX", Apart, "values are cut: arguments of far ancestors first, then copies in events, then the rest", "`lapwing.alert.cut`"),
    limit("agent/src/alert/cut.rs", "CUTS_LISTED_MAX", Apart, "further cuts are counted", "`lapwing.alert.cut`"),
    limit("agent/src/alert/cut.rs", "LISTED_NAME_CHARS_MAX", Apart, "the name is cut", "`lapwing.alert.cut`"),
    limit("agent/src/alert.rs", "NAME_CHARS_MAX", Apart, "the value is cut", "an ellipsis"),
    limit("agent/src/alert.rs", "REASON_CHARS_MAX", Apart, "the reason is cut", "an ellipsis"),
    limit("agent/src/alert.rs", "SAID_BYTES_MAX", Apart, "it is cut", "`lapwing.alert.cut`"),
    limit("agent/src/alert.rs", "OWN_BYTES_MAX", Apart, "it is cut", "`lapwing.alert.cut`"),
    limit("agent/src/alert.rs", "GUIDE_BYTES_MAX", Apart, "the guide is cut", "`lapwing.alert.cut`"),
    limit("agent/src/alert.rs", "OVERHEAD_BYTES_MAX", Apart, "a part of `ALERT_BYTES_MAX`", "–"),
    limit("agent/src/alert/form.rs", "REDUCED_VALUE_BYTES_MAX", Apart, "the value is cut", "a mark in the value"),
    limit("agent/src/alert/form.rs", "ORIGINAL_BYTES_MAX", Apart, "the text is cut", "a mark in the value"),
    limit("agent/src/alert/form.rs", "MINIMAL_CHARS_MAX", Apart, "the value is cut", "an ellipsis"),
    limit("agent/src/alert/lost.rs", "EPISODE_MAX", Apart, "another alert reports further losses", "–"),
    limit("agent/src/lane.rs", "DELIVERY_BYTES_MAX", Times(2), "the rest is handed over next", "–"),
    limit("agent/src/ledger.rs", "COMMITS_WAITING_BYTES_MAX", Times(1), "lanes wait", "`waiting_bytes` in `lapwing status`"),
    limit("agent/src/ledger.rs", "ROWS_READ_MAX", Apart, "the rest is read next", "–"),
    limit("agent/src/ledger.rs", "STOP_MAX", Apart, "alerts that the disk does not accept are dropped", LOG),
    limit("agent/src/ledger.rs", "HUNG_MAX", Apart, "the lane ends", LOG),
    limit("agent/src/ledger/writer.rs", "TAKEN_BYTES_MAX", Times(1), "the rest is written next", "–"),
    limit("agent/src/alert_log/mod.rs", "WRITE_BYTES_MAX", Passing, "the rest is written next", "–"),
    limit("agent/src/runtime.rs", "LOOKS_IN_VAIN_MAX", Apart, "the watchdog is not pinged", LOG),
    limit("agent/src/pipeline.rs", "LANES_END_MAX", Apart, "the next stage ends", LOG),
    limit("agent/src/pipeline.rs", "RUNTIME_END_MAX", Apart, "the next stage ends", LOG),
    limit("agent/src/pipeline.rs", "LEDGER_END_MAX", Apart, "the next stage ends", LOG),
    limit("agent/src/pipeline.rs", "END_MAX", Apart, "the process ends", LOG),
    limit("agent/src/ledger.rs", "HELD_BYTES_MAX", Times(1), "alerts that are in the log or delivered are evicted; otherwise rules wait", "`buffered_bytes`, `alerts_not_logged` in `lapwing status`"),
    limit("agent/src/ledger/follow.rs", "FOLLOW_BYTES_MAX", Passing, "the rest is added next", "–"),
    limit("agent/src/ledger/follow.rs", "RESEND_AGE_MAX", Apart, "older alerts are not sent again", LOG),
    limit("agent/src/alert_log/mod.rs", "LINE_BYTES_MAX", Passing, "the line is skipped", LOG),
    limit(SETTING, "[alerts] rotate_size × rotate_keep", Apart, "on disk: the oldest file is deleted; alerts about others than its biggest consumer are carried over, within half of this", "`alerts_carried`, `alerts_expired` in `lapwing status`"),
    limit("agent/src/alert_log/retain.rs", "FILES_TIMES_MAX", Apart, "the same, for this multiple of `rotate_keep`", STATUS),
    limit("agent/src/alert_log/retain.rs", "ACTORS_MAX", Each(320), "further actors count as one", "–"),
    limit("agent/src/alert_log/retain.rs", "ACTOR_CHARS_MAX", Apart, "the rest of the name makes no difference", "–"),
    limit("agent/src/alert_log/files.rs", "FINGERPRINT_BYTES_MAX", Apart, "the rest makes no difference", "–"),
    limit("agent/src/store/spool.rs", "ALERTS_KNOWN_MAX", Apart, "a copy of an older alert is a new alert", "–"),
    limit(SETTING, "[spool] size_max", Apart, "on disk: the oldest alerts are not delivered", STATUS),
    limit(SETTING, "[sink.dead_letters] size_max", Apart, "on disk: the older half is dropped", "`dropped` in `lapwing status`"),
    limit("agent/src/sink/waiting.rs", "ALERTS_MAX", Apart, "later alerts of the sink wait too", "`waiting_alone` in `lapwing status`"),
    limit("agent/src/sink/waiting.rs", "BYTES_MAX", Apart, "on disk: the same", "`waiting_alone` in `lapwing status`"),
    limit(SETTING, "[sink.batch] bytes_max", Times(3), "further alerts are in the next request; of one sink, as read, as sent and compressed", "–"),
    limit("agent/src/sink/http.rs", "ANSWER_BYTES_MAX", Passing, "the answer is rejected", "`lapwing status`, *sinks*"),
    limit("agent/src/backoff.rs", "RETRY_AFTER_MAX", Apart, "it is tried again nevertheless", "–"),
    limit("agent/src/sink/delivery.rs", "FLUSH_MAX", Apart, "the rest is delivered by the next run", LOG),
    // CloudTrail.
    limit("agent/src/source/cloudtrail/notification.rs", "OBJECTS_MAX", Apart, "the message is rejected", STATUS),
    limit("agent/src/source/cloudtrail/notification.rs", "ENVELOPES_MAX", Apart, "the message is rejected", STATUS),
    limit("agent/src/source/cloudtrail/folder.rs", "FILES_PENDING_MAX", Each(256), "further files are found by a later scan", "–"),
    limit("agent/src/source/cloudtrail/seen.rs", "BLOCKS_MAX", Each(256 * 40), "a copy of an old record is a new record", "–"),
    limit("agent/src/source/cloudtrail/progress.rs", "FILES_REMEMBERED_MAX", Each(150), "the oldest are recognised by their time only", "–"),
    limit("agent/src/source/cloudtrail/aws.rs", "ERROR_BYTES_MAX", Passing, "the rest is not read", LOG),
    limit("agent/src/source/cloudtrail/queues.rs", "MESSAGES_IN_FLIGHT_MAX", Apart, "further messages wait in the queue", "–"),
    limit("agent/src/source/cloudtrail/queues.rs", "OBJECTS_WAITING_MAX", Each(1 << 20), "further objects wait", "–"),
    limit("agent/src/frames.rs", "RECORD_BYTES_MAX", Times(1), "the record is skipped", LOG),
    limit("agent/src/frames.rs", "LEVELS_MAX", Apart, "the document is rejected", LOG),
    limit("agent/src/frames.rs", "RETRIES_MAX", Apart, "the file is rejected", LOG),
    limit("agent/src/frames.rs", "DEPTH_MAX", Apart, "the record is rejected", LOG),
    limit("agent/src/source/cloudtrail/records.rs", "INFLATED_BYTES_MAX", Apart, "a stream: the rest is rejected", LOG),
    limit("agent/src/source/cloudtrail/mod.rs", "BATCH_EVENTS_MAX", Apart, "the rest is in the next batch", "–"),
    limit("agent/src/source/cloudtrail/mod.rs", "BATCH_BYTES_MAX", Times(4), "the rest is in the next batch", "–"),
    limit("agent/src/source/cloudtrail/ecs.rs", "FLATTENED_BYTES_MAX", Apart, "the value is omitted", EVENT),
    limit("agent/src/source/cloudtrail/s3.rs", "MEMORY_BYTES_MAX", Apart, "the object is kept in a file", "–"),
    limit("agent/src/source/cloudtrail/s3.rs", "OBJECT_BYTES_MAX", Apart, "on disk: the object is rejected", STATUS),
    limit("agent/src/source/cloudtrail/s3.rs", "REGIONS_MAX", Each(256), "the region is looked up again", "–"),
    limit("agent/src/source/cloudtrail/status.rs", "ALARMS_MAX", Apart, "further alarms are only logged", LOG),
    limit("agent/src/source/cloudtrail/tree.rs", "WATCHES_MAX", Each(512), "further folders are only looked through", "–"),
    limit("agent/src/source/cloudtrail/tree.rs", "COMPLAINTS_MAX", Each(512), "trouble with further paths is not reported", "–"),
    limit("agent/src/source/cloudtrail/tree.rs", "UNREAD_BYTES_MAX", Times(1), "further folders are left for a later look", LOG),
    limit("agent/src/source/cloudtrail/sqs_message.rs", "TRIES_MAX", Apart, "the message raises no further alarm", LOG),
    // Commands.
    limit("agent/src/recording.rs", "NOTE_BYTES_MAX", Apart, "the recording is rejected", COMMAND),
    limit("agent/src/recording/writer.rs", "FRAME_AGE_MAX", Apart, "the frame is closed", "–"),
    limit("agent/src/recording/reader.rs", "FRAME_BYTES_MAX", Apart, "the recording is rejected", COMMAND),
    limit("agent/src/command/replay.rs", "UNORDERED_BYTES_MAX", Apart, "the earliest is evaluated at once", COMMAND),
    limit("agent/src/fixture.rs", "TESTS_BYTES_MAX", Apart, "the file is rejected", COMMAND),
    limit("agent/src/fixture.rs", "TEMPLATES_DEEP_MAX", Apart, "the test is rejected", COMMAND),
    limit("agent/src/fixture.rs", "EVENTS_MAX", Apart, "the test is rejected", COMMAND),
    limit("agent/src/fixture.rs", "ALERTS_BYTES_MAX", Apart, "the test is rejected", COMMAND),
    limit("agent/src/fixture.rs", "REPEAT_MAX", Apart, "the test is rejected", COMMAND),
    limit("agent/src/explain.rs", "VALUE_CHARACTERS_MAX", Apart, "the value is cut", COMMAND),
    limit("agent/src/explain.rs", "VALUES_MAX", Apart, "further values are counted", COMMAND),
    limit("agent/src/explain.rs", "CONDITION_CHARACTERS_MAX", Apart, "the condition is cut", COMMAND),
    limit("agent/src/explain.rs", "ALTERNATIVES_MAX", Apart, "further alternatives are counted", COMMAND),
    limit("agent/engine/src/engine/coverage.rs", "VALUES_SHOWN_MAX", Apart, "further values are not shown", COMMAND),
    limit("agent/engine/src/engine/explain/mod.rs", "MISSES_MAX", Apart, "further misses are not shown", COMMAND),
    limit("agent/engine/src/engine/explain/mod.rs", "ALERTS_MAX", Apart, "further alerts are not shown", COMMAND),
    limit("agent/engine/src/engine/explain/chain.rs", "HITS_MAX", Apart, "further events are not tried", COMMAND),
    limit("agent/engine/src/engine/explain/chain.rs", "REFUSED_MAX", Apart, "others are not shown", COMMAND),
    limit("agent/engine/src/engine/explain/state.rs", "GROUPS_MAX", Apart, "further groups are not checked", COMMAND),
    limit("agent/engine/src/engine/explain/state.rs", "GROUPS_SHOWN_MAX", Apart, "further groups are not shown", COMMAND),
    limit("agent/src/command/explain.rs", "CANDIDATES_MAX", Apart, "further rules are not shown", COMMAND),
    limit("agent/src/command/test.rs", "REASON_LINES_MAX", Apart, "the rest is not shown", COMMAND),
    limit("agent/src/command/alerts.rs", "LISTED_MAX", Apart, "further alerts are not shown", COMMAND),
    limit("agent/src/command/alerts.rs", "FOLLOWED_MAX", Apart, "earlier alerts are not shown", COMMAND),
    limit("agent/src/command/alerts.rs", "AMBIGUOUS_SHOWN_MAX", Apart, "further alerts are not shown", COMMAND),
    limit("agent/src/command/alerts/detail.rs", "LINES_MAX", Apart, "further lines are not shown", COMMAND),
    limit("agent/src/command/mod.rs", "REPORTED_MAX", Apart, "further faults are counted", COMMAND),
    limit("agent/src/command/check/needs.rs", "ROWS_MAX", Apart, "further rows are counted", COMMAND),
    limit("agent/src/terminal.rs", "TEXT_WIDTH_MAX", Apart, "the line is broken", "–"),
];

/// Memory of the agent with Elastic's rules for Linux and no state, without the maps of its kernel programs.
/// Measured (`docs/benchmarks.md`, *Memory*): 32 MiB right after the start, of which 12 MiB are pages of the program's file;
/// and 41 MiB after 31,000 events, of which 9 MiB at most are what the matcher keeps of fields and has rows of its own.
const AT_REST_BYTES: u64 = 40 << 20;
/// Processors of the largest supported host, and the scratch space of the kernel programs per processor: 83.6 KiB, and half
/// a KiB of counters.
const PROCESSORS: u64 = 128;
const PROCESSOR_BYTES: u64 = 84 << 10;
/// Real memory per hundred charged bytes, with the allocator's overhead and the spare capacity of maps and vectors. The
/// highest measured value is 114; no owner takes more than this (`overhead`).
pub(super) const OVERHEAD_PERCENT: u64 = 125;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The constants of the sources: file and name, with their expression.
fn constants() -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for folder in ["agent/src", "agent/engine/src", "agent-ebpf/common/src"] {
        collect(&root().join(folder), &mut found);
    }
    found
}

fn collect(folder: &Path, found: &mut BTreeMap<(String, String), String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !path.ends_with("tests") {
            collect(&path, found);
        } else if name.ends_with(".rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            // Constants of a file's own tests are left out.
            let product = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            found.extend(
                product
                    .lines()
                    .filter_map(constant)
                    .map(|(constant, value)| ((name.clone(), constant.to_owned()), value.to_owned())),
            );
        }
    }
}

/// The constant that a line defines, if its name is that of a limit, with its expression.
fn constant(line: &str) -> Option<(&str, &str)> {
    let (before, rest) = line.split_once("const ")?;
    let (name, rest) = rest.split_once(": ")?;
    let is_name =
        name.ends_with("_MAX") && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let (_, value) = rest.split_once(" = ")?;
    (is_name && !before.contains("//")).then(|| (name, value.trim_end_matches(';')))
}

/// Evaluates the expression of a constant.
fn number(expression: &str, values: &BTreeMap<(String, String), String>, place: &str) -> Option<u64> {
    let expression = expression.split(" as ").next()?.trim();
    let both = |operator: &str, of: fn(u64, u64) -> Option<u64>| {
        let (left, right) = expression.rsplit_once(operator)?;
        of(number(left, values, place)?, number(right, values, place)?)
    };
    both(" << ", |left, right| left.checked_shl(u32::try_from(right).ok()?))
        .or_else(|| both(" + ", u64::checked_add))
        .or_else(|| both(" * ", u64::checked_mul))
        .or_else(|| both(" / ", u64::checked_div))
        .or_else(|| expression.replace('_', "").parse().ok())
        .or_else(|| {
            let (of, name) = expression.rsplit_once("::").unwrap_or(("", expression));
            let place = if of.ends_with("_common") { "agent-ebpf/common/src/lib.rs" } else { place };
            let elsewhere = || values.iter().find(|((_, other), _)| other == name).map(|(_, value)| value);
            let value = values.get(&(place.to_owned(), name.to_owned())).or_else(elsewhere)?;
            (value != expression).then(|| number(value, values, place))?
        })
}

/// The default of a setting.
fn setting(name: &str) -> u64 {
    let limits = Limits::default();
    let count = match name {
        "[sensor] ring_size, once and a half" => {
            return crate::sensor::Config::default().ring_size.as_u64() / 2 * 3;
        }
        "[spool] size_max" => return crate::store::Config::default().size_max.as_u64(),
        "[sink.dead_letters] size_max" => {
            return crate::sink::dead_letter::Config::default().size_max.as_u64();
        }
        "[alerts] rotate_size × rotate_keep" => {
            let alerts = crate::alert_log::Config::default();
            return alerts.rotate_size.as_u64() * u64::from(alerts.rotate_keep);
        }
        "[sink.batch] bytes_max" => return crate::sink::BATCH_BYTES.as_u64(),
        "sequence_bytes_max" => limits.sequence_bytes_max,
        "threshold_bytes_max" => limits.threshold_bytes_max,
        "suppression_bytes_max" => limits.suppression_bytes_max,
        "state_bytes_max" => limits.state_bytes_max,
        "held_back_bytes_max" => limits.held_back_bytes_max,
        "lineage_bytes_max" => limits.lineage_bytes_max,
        "unordered_bytes_max" => limits.unordered_bytes_max,
        "alerts_max" => limits.alerts_max,
        "terms_bytes_max" => limits.terms_bytes_max,
        "terms_bytes_all_max" => limits.terms_bytes_all_max,
        "job_bytes_max" => limits.job_bytes_max,
        "job_bytes_all_max" => limits.job_bytes_all_max,
        other => panic!("the default of `{other}` is unknown"),
    };
    count as u64
}

impl Limit {
    fn value(&self, values: &BTreeMap<(String, String), String>) -> (Option<u64>, String) {
        if self.place == SETTING {
            return (Some(setting(self.name)), String::new());
        }
        let value = &values[&(self.place.to_owned(), self.name.to_owned())];
        (number(value, values, self.place), value.clone())
    }

    fn is_of_bytes(&self) -> bool {
        self.name.contains("BYTES") || self.name.contains("bytes") || self.name.contains("size")
    }

    /// The value as text.
    fn shown(&self, values: &BTreeMap<(String, String), String>) -> String {
        match self.value(values) {
            (Some(bytes), _) if self.is_of_bytes() => ByteSize::b(bytes).display().iec().to_string(),
            (Some(number), _) => number.to_string(),
            (None, expression) => format!("`{expression}`"),
        }
    }
}

fn document(values: &BTreeMap<(String, String), String>) -> String {
    let mut text = String::from(
        "# Limits\n\nEvery limit of the agent. A test generates this page from `agent/src/budget/limits.rs` and the sources, and fails \
         if a constant\nwhose name ends in `_MAX` is missing. *Memory* is the part of the agent's memory: `held`, the bytes may be \
         held all the time;\n`held, N times`, N times as much; `held, N B each`, this many objects of N bytes; `kernel`, in \
         the kernel; `passing`, while one object is\nprocessed. Another test adds up all limits and compares the sum with \
         the memory limit of the unit.\n\n| limit | value | memory | beyond it | visible in | source \
         |\n|---|---|---|---|---|---|\n",
    );
    for limit in LIMITS {
        let memory = match limit.held {
            Times(1) => "held".to_owned(),
            Times(times) => format!("held, {times} times"),
            Each(bytes) => format!("held, {bytes} B each"),
            Kernel(1) => "kernel".to_owned(),
            Kernel(bytes) => format!("kernel, {bytes} B each"),
            Passing => "passing".to_owned(),
            Apart => "–".to_owned(),
        };
        let place = if limit.place == SETTING { "setting".to_owned() } else { format!("`{}`", limit.place) };
        let (name, value) = (limit.name, limit.shown(values));
        writeln!(text, "| `{name}` | {value} | {memory} | {} | {} | {place} |", limit.beyond, limit.seen)
            .unwrap();
    }
    text
}

/// Every constant that is a limit has a row.
#[test]
fn every_limit_is_listed_once() {
    let values = constants();
    let mut listed: Vec<_> =
        LIMITS.iter().filter(|limit| limit.place != SETTING).map(|limit| (limit.place, limit.name)).collect();
    listed.sort_unstable();
    let found: Vec<_> = values.keys().map(|(place, name)| (place.as_str(), name.as_str())).collect();
    let missing: Vec<_> = found.iter().filter(|limit| !listed.contains(limit)).collect();
    let gone: Vec<_> = listed.iter().filter(|limit| !found.contains(limit)).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "without a row: {missing:#?}\nno such constant: {gone:#?}"
    );
    assert!(listed.windows(2).all(|pair| pair[0] != pair[1]), "a limit is listed twice");
}

#[test]
fn the_page_of_limits_is_up_to_date() {
    let path = root().join("docs/limits.md");
    let document = document(&constants());
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &document).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == document, "UPDATE_EXPECT=1 cargo test -p lapwing limits updates docs/limits.md");
}

/// The sum of all limits, with the allocator's overhead and the memory at rest, fits into the unit's memory limit.
#[test]
fn all_limits_together_fit_into_the_unit() {
    let values = constants();
    let (mut held, mut kernel, mut passing) = (0, PROCESSORS * PROCESSOR_BYTES, 0);
    for limit in LIMITS {
        let value =
            || limit.value(&values).0.unwrap_or_else(|| panic!("the value of {} is unknown", limit.name));
        match limit.held {
            Times(bytes) | Each(bytes) => held += value() * bytes,
            Kernel(bytes) => kernel += value() * bytes,
            Passing => passing = passing.max(value()),
            Apart => {}
        }
    }
    let unit = fs::read_to_string(root().join("packaging/lapwing.service")).unwrap();
    let setting = |name: &str| {
        let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value
            .and_then(|value| value.strip_suffix('M')?.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{name}"))
            << 20
    };
    let (high, max) = (setting("MemoryHigh"), setting("MemoryMax"));
    let sum = AT_REST_BYTES + kernel + (held + passing) * OVERHEAD_PERCENT / 100;
    let shown = [AT_REST_BYTES, kernel, held, passing, sum, high];
    let shown = shown.map(|bytes| ByteSize::b(bytes).display().iec().to_string());
    println!("at rest, kernel, held, passing, sum, MemoryHigh=: {shown:?}");
    assert!(sum < high && high < max, "at rest, kernel, held, passing, sum, MemoryHigh=: {shown:?}");
}
