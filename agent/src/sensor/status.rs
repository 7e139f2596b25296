//! The sensor's counters, for `lapwing status` and the log.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Ebpf;
use serde_json::json;

use super::Sensor;
use super::canary::CanaryCounts;
use super::hook::HookReport;
use super::loss::KindCounts;
use super::owner::OwnerCounts;
use super::process::TableCounts;
use crate::bounded::{self, HOST_FILE_BYTES_MAX};
use crate::budget::Meter;
use crate::integrity::Integrity;

/// What was taken over from the previous run.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandoverCounts {
    /// The number of its process.
    pub(super) pid: u32,
    /// Records from the time without an agent.
    pub(super) records: u64,
    /// Those that were lost then.
    pub(super) lost: u64,
}

/// The sensor's status, for `lapwing status`.
#[derive(Clone, Debug)]
pub(crate) struct SensorStatus {
    /// Every hook.
    pub(crate) hooks: Vec<HookReport>,
    /// Records by kind, with the classes of destinations that are filtered now.
    pub(crate) records: Vec<(&'static str, KindCounts, Vec<&'static str>)>,
    /// How often a program could not run because it was running on that processor already. Not each would have
    /// made a record.
    pub(crate) probe_recursion_misses: u64,
    /// Records that could not be decoded.
    pub(crate) malformed: u64,
    /// Records that came too late to be reordered.
    pub(crate) out_of_order: u64,
    /// Records of the agent's own connections, for which no events are built.
    pub(crate) self_connections: u64,
    /// Records that the snapshot, or the previous run, has reported already.
    pub(crate) already_delivered: u64,
    /// The counters of the self-test.
    pub(crate) canary: CanaryCounts,
    /// The counters of open connections.
    pub(crate) owners: OwnerCounts,
    /// Processes that are kept, living and ended.
    pub(crate) processes: usize,
    /// Those of them that are alive, as far as is known.
    pub(crate) alive: usize,
    /// Those of them that ended a short while ago. The others are kept for their children.
    pub(crate) ended: usize,
    /// What the process table counted.
    pub(crate) table: TableCounts,
}

impl Sensor {
    /// The sensor's status.
    pub(crate) fn status(&self) -> SensorStatus {
        let records = self.losses.by_kind(self.ring.delivered());
        SensorStatus {
            hooks: self.hooks.clone(),
            records: records
                .into_iter()
                .map(|(kind, counts)| (kind.name(), counts, self.filter.dropped(kind)))
                .collect(),
            probe_recursion_misses: self.ebpf.as_ref().map_or(0, recursion_misses),
            malformed: self.malformed,
            out_of_order: self.ring.out_of_order(),
            self_connections: self.self_connections,
            already_delivered: self.already_delivered,
            canary: self.canary.counts(),
            owners: self.owners.counts(),
            processes: self.table.len(),
            alive: self.table.alive(),
            ended: self.table.ended(),
            table: self.table.counts(),
        }
    }

    /// Logs at the end how many records were delivered, filtered and lost.
    pub(super) fn close_account(&self) {
        let records = self.losses.by_kind(self.ring.delivered());
        let each = records.into_iter().map(|(kind, counts)| {
            let KindCounts { seen, filtered, lost, delivered } = counts;
            format!("{} {seen} ({delivered} delivered, {filtered} filtered, {lost} lost)", kind.name())
        });
        tracing::info!("records seen: {}", each.collect::<Vec<_>>().join(", "));
    }

    /// The status as `lapwing status` prints it.
    pub(super) fn status_json(&self) -> serde_json::Value {
        let status = self.status();
        let records = status.records.iter().map(|(kind, counts, dropped)| {
            let KindCounts { seen, filtered, lost, delivered } = counts;
            let dropped = Some(dropped).filter(|dropped| !dropped.is_empty());
            json!({
                "name": kind,
                "seen": seen,
                "delivered": delivered,
                "filtered": filtered,
                "lost": lost,
                "filtered_to": dropped,
            })
        });
        json!({
            "hooks": status.hooks,
            "records": records.collect::<Vec<_>>(),
            "probe_recursion_misses": status.probe_recursion_misses,
            "downtime": self.downtime.map(|(from, to)| json!({"from": from.to_string(), "to": to.to_string()})),
            "handover": self.handover.map(|HandoverCounts { pid, records, lost }| {
                json!({"pid": pid, "records": records, "lost": lost})
            }),
            "malformed": status.malformed,
            "out_of_order": status.out_of_order,
            "self_connections_filtered": status.self_connections,
            "already_delivered": status.already_delivered,
            "tampered": self.tamper.reasons(),
            "files_changed": self.tamper.meant(),
            "files": self.integrity.as_ref().map(Integrity::status),
            "alarms": self.integrity.as_ref().map(Integrity::alarms).unwrap_or_default(),
            "tamperings": self.tamper.counts().0,
            "tamperings_unlisted": self.tamper.counts().1,
            "canary": {
                "flights": status.canary.flights,
                "failed": status.canary.failed,
                "records": status.canary.records,
            },
            "connections": status.owners.open,
            "owner_table_full": status.owners.table_full,
            "closes_without_owner": status.owners.closes_without_owner,
            "processes": status.processes,
            "processes_alive": status.alive,
            "processes_ended": status.ended,
            "cgroups_evicted": self.table.groups.evicted(),
            "processes_evicted": status.table.evicted,
            "processes_shortened": status.table.shortened,
            "processes_previous_dropped": status.table.previous_dropped,
            "processes_recovered_from_procfs": status.table.recovered,
            "processes_expired_without_exit": status.table.expired_without_exit,
            "budgets": self.table.meters().map(Meter::status),
        })
    }
}

/// How often the kernel skipped a program because it was running already, by the programs' descriptors.
pub(super) fn recursion_misses(ebpf: &Ebpf) -> u64 {
    let fds = ebpf.programs().filter_map(|(_, program)| Some(program.fd().ok()?.as_fd().as_raw_fd()));
    let misses = fds.filter_map(|fd| {
        let text = bounded::read_text(format!("/proc/self/fdinfo/{fd}"), HOST_FILE_BYTES_MAX).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
        line.trim().parse::<u64>().ok()
    });
    misses.sum()
}
