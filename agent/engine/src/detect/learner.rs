//! Runs a function of a machine learning job. A bucket that has ended is scored by what was learned of its partition,
//! and is then learned itself. The functions define both: [`rare`](super::rare) and [`spike`](super::spike).

use super::buckets::{Buckets, Partitions};
use super::budget::{Budget, SharedBytes};
use super::detection::{Detection, Learned, Over};
use super::{Change, Findings, Hit, Limits};
use crate::event::{Schema, Timestamp};

/// The memory of one job.
#[derive(Debug)]
pub(super) struct Learner<L> {
    detection: Detection,
    partitions: Partitions<L>,
    buckets: Buckets,
}

impl<L: Learned> Learner<L> {
    /// A job that has learned nothing.
    pub(super) fn new(detection: Detection, limits: Limits, pool: &SharedBytes) -> Self {
        let budget = || Budget::new(pool, limits.job_bytes_max);
        let buckets = Buckets::new(&detection, budget());
        Self { detection, partitions: Partitions::new(budget()), buckets }
    }

    /// Puts back a row that was given out as a [`Change`]; rows that cannot be read are passed over. A row that is longer
    /// than this version writes is written anew, and one for which there is no room is taken out.
    pub(super) fn restore(&mut self, schema: &Schema, key: &str, value: &[u8], changes: &mut Vec<Change>) {
        if !self.buckets.restore(schema, key, value, changes) {
            self.partitions.restore(key, value, changes);
        }
    }

    /// Takes an event that matched the job's query.
    pub(super) fn event(&mut self, schema: &Schema, hit: &Hit, findings: &mut Findings) {
        self.buckets.event(schema, hit, findings);
    }

    /// Advances the time: no event before `now` will come, so buckets that have ended are scored and learned.
    pub(super) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        while let Some((bucket, over)) = self.buckets.next_over(now, findings) {
            self.close(bucket, over, findings);
        }
    }

    fn close(&mut self, bucket: Timestamp, over: Over, findings: &mut Findings) {
        for (name, present) in over {
            let mut partition = self.partitions.take(&name);
            partition.pass(bucket, self.detection.bucket_span);
            let learned = partition.buckets();
            for scored in partition.close(bucket, &self.detection, present) {
                findings.found.extend(self.detection.finding(scored, &name, bucket, learned));
            }
            self.partitions.put(name, partition, &mut findings.changes);
        }
    }

    /// What was forgotten because of the limit.
    pub(super) fn discarded(&self) -> u64 {
        self.partitions.discarded() + self.buckets.discarded()
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.partitions.bytes() + self.buckets.bytes()
    }
}
