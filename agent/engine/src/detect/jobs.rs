//! The jobs of one machine learning rule: each learns for itself, and an anomaly of any is told.

use std::sync::Arc;

use super::learner::{Detection, Learner};
use super::rare::Rare;
use super::spike::Spike;
use super::{Findings, Hit, Limits};
use crate::event::{Schema, Timestamp};
use crate::rule::{Job, JobFunction};

/// Between the id of a job and the key of one of its rows.
const PARTED: char = '\u{1e}';

/// The memory of a rule's jobs.
#[derive(Debug)]
pub struct Jobs(Vec<(Arc<Job>, Function)>);

#[derive(Debug)]
enum Function {
    Rare(Learner<Rare>),
    Spike(Learner<Spike>),
}

impl Jobs {
    /// Jobs that have learned nothing. Anomalies below `record_score_min` are not told.
    #[must_use]
    pub fn new(jobs: &[Arc<Job>], record_score_min: f64, limits: Limits) -> Self {
        let function = |job: &Arc<Job>| {
            let (JobFunction::Rare { by: field } | JobFunction::HighDistinctCount { field }) = job.function;
            let detection = Detection {
                job_id: job.id.as_str().into(),
                field,
                partition: job.partition,
                bucket_span: job.bucket_span,
                buckets_learned_min: job.buckets_learned_min,
                record_score_min,
            };
            match job.function {
                JobFunction::Rare { .. } => Function::Rare(Learner::new(detection, limits)),
                JobFunction::HighDistinctCount { .. } => Function::Spike(Learner::new(detection, limits)),
            }
        };
        Self(jobs.iter().map(|job| (job.clone(), function(job))).collect())
    }

    /// Puts back a row that was given out as a [`Change`](super::Change). Rows of other jobs are passed over.
    pub(crate) fn restore(&mut self, schema: &Schema, key: &str, value: &[u8]) {
        let Some((id, key)) = key.split_once(PARTED) else { return };
        for (_, function) in self.0.iter_mut().filter(|(job, _)| job.id == id) {
            match function {
                Function::Rare(rare) => rare.restore(schema, key, value),
                Function::Spike(spike) => spike.restore(schema, key, value),
            }
        }
    }

    /// Takes an event that matched the queries of some of the jobs.
    pub(crate) fn event(&mut self, schema: &Schema, hit: &Hit, findings: &mut Findings) {
        for part in &hit.parts {
            if let Some((job, function)) = self.0.get_mut(*part) {
                told_by(job, findings, |findings| match function {
                    Function::Rare(rare) => rare.event(schema, hit, findings),
                    Function::Spike(spike) => spike.event(schema, hit, findings),
                });
            }
        }
    }

    /// Tells that no event before `now` will come any more.
    pub(crate) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        for (job, function) in &mut self.0 {
            told_by(job, findings, |findings| match function {
                Function::Rare(rare) => rare.advance(now, findings),
                Function::Spike(spike) => spike.advance(now, findings),
            });
        }
    }

    /// Values that were forgotten because of a limit.
    pub(crate) fn discarded(&self) -> u64 {
        let discarded = self.0.iter().map(|(_, function)| match function {
            Function::Rare(rare) => rare.discarded(),
            Function::Spike(spike) => spike.discarded(),
        });
        discarded.sum()
    }
}

/// Puts the id of the job before the keys of the rows that it changes.
fn told_by(job: &Job, findings: &mut Findings, run: impl FnOnce(&mut Findings)) {
    let before = findings.changes.len();
    run(findings);
    for change in &mut findings.changes[before..] {
        change.key = format!("{}{PARTED}{}", job.id, change.key);
    }
}
