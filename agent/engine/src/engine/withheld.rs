//! Suppressed findings that were not reported yet, stored by one engine for the next, which reports them at once. So a
//! stop loses none of them, and a kill those of its last half minute.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::detect::{Act, HeldBack, Suppressed};
use crate::event::{Schema, Timestamp};

/// The version of the format. A reader ignores other versions.
const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
struct Withheld {
    version: u32,
    summaries: Vec<Summary>,
}

#[derive(Deserialize, Serialize)]
struct Summary {
    count: u64,
    /// Nanoseconds since the epoch.
    start: i64,
    end: i64,
    /// Names of fields, and their values.
    group: Option<Vec<(SmolStr, Option<SmolStr>)>>,
    /// User, group, executable, destination, and the count.
    held_back: Vec<([Option<SmolStr>; 4], u64)>,
    others: u64,
}

/// Writes the summaries.
pub(super) fn write(schema: &Schema, summaries: Vec<Suppressed>) -> Option<Vec<u8>> {
    let summaries = summaries.into_iter().map(|summary| Summary {
        count: summary.count,
        start: summary.start.as_nanos(),
        end: summary.end.as_nanos(),
        group: summary.group.map(|fields| {
            fields.into_iter().map(|(field, value)| (schema.name(field).into(), value)).collect()
        }),
        held_back: summary.held_back.into_iter().map(row).collect(),
        others: summary.others,
    });
    serde_json::to_vec(&Withheld { version: VERSION, summaries: summaries.collect() }).ok()
}

/// Reads the summaries; none if they are invalid.
pub(super) fn read(schema: &Schema, value: &[u8]) -> Vec<Suppressed> {
    let is_known = |withheld: &Withheld| withheld.version == VERSION;
    let Some(withheld) = serde_json::from_slice(value).ok().filter(is_known) else { return Vec::new() };
    let summaries = withheld.summaries.into_iter().map(|summary| Suppressed {
        count: summary.count,
        start: Timestamp::from_nanos(summary.start),
        end: Timestamp::from_nanos(summary.end),
        group: summary.group.map(|fields| {
            fields.into_iter().filter_map(|(name, value)| Some((schema.id(&name)?, value))).collect()
        }),
        held_back: summary.held_back.into_iter().map(held_back).collect(),
        others: summary.others,
    });
    summaries.collect()
}

fn row(
    HeldBack { act: Act { user, group, executable, destination }, count }: HeldBack,
) -> ([Option<SmolStr>; 4], u64) {
    ([user, group, executable, destination], count)
}

fn held_back(([user, group, executable, destination], count): ([Option<SmolStr>; 4], u64)) -> HeldBack {
    HeldBack { act: Act { user, group, executable, destination }, count }
}
