//! The jobs of one machine learning rule. Each learns by itself, and an anomaly of any of them is a finding.

use std::sync::Arc;

use super::budget::SharedBytes;
use super::detection::Detection;
use super::learner::Learner;
use super::rare::Rare;
use super::spike::Spike;
use super::{Change, Findings, Hit, Limits};
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
    /// Jobs that have learned nothing. Anomalies below `record_score_min` are dropped.
    #[must_use]
    pub(crate) fn new(jobs: &[Arc<Job>], record_score_min: f64, limits: Limits, pool: &SharedBytes) -> Self {
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
                JobFunction::Rare { .. } => Function::Rare(Learner::new(detection, limits, pool)),
                JobFunction::HighDistinctCount { .. } => {
                    Function::Spike(Learner::new(detection, limits, pool))
                }
            }
        };
        Self(jobs.iter().map(|job| (job.clone(), function(job))).collect())
    }

    /// Puts back a row that was given out as a [`Change`]. Rows of other jobs are passed over.
    pub(crate) fn restore(&mut self, schema: &Schema, key: &str, value: &[u8], changes: &mut Vec<Change>) {
        let Some((id, key)) = key.split_once(PARTED) else { return };
        for (job, function) in self.0.iter_mut().filter(|(job, _)| job.id == id) {
            named_after(job, changes, |changes| match function {
                Function::Rare(rare) => rare.restore(schema, key, value, changes),
                Function::Spike(spike) => spike.restore(schema, key, value, changes),
            });
        }
    }

    /// Takes an event that matched the queries of some of the jobs.
    pub(crate) fn event(&mut self, schema: &Schema, hit: &Hit, findings: &mut Findings) {
        for part in &hit.parts {
            if let Some((job, function)) = self.0.get_mut(*part) {
                collected_from(job, findings, |findings| match function {
                    Function::Rare(rare) => rare.event(schema, hit, findings),
                    Function::Spike(spike) => spike.event(schema, hit, findings),
                });
            }
        }
    }

    /// Advances the time: no event before `now` will come.
    pub(crate) fn advance(&mut self, now: Timestamp, findings: &mut Findings) {
        for (job, function) in &mut self.0 {
            collected_from(job, findings, |findings| match function {
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

    /// Bytes that they hold.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = self.0.iter().map(|(_, function)| match function {
            Function::Rare(rare) => rare.bytes(),
            Function::Spike(spike) => spike.bytes(),
        });
        bytes.sum()
    }
}

/// Puts the id of the job before the keys of the rows that it changes.
fn collected_from(job: &Job, findings: &mut Findings, run: impl FnOnce(&mut Findings)) {
    let mut own = Findings::default();
    run(&mut own);
    findings.found.append(&mut own.found);
    named_after(job, &mut findings.changes, |changes| changes.append(&mut own.changes));
}

/// The same for rows alone.
fn named_after(job: &Job, changes: &mut Vec<Change>, run: impl FnOnce(&mut Vec<Change>)) {
    let before = changes.len();
    run(changes);
    for change in &mut changes[before..] {
        change.key = format!("{}{PARTED}{}", job.id, change.key);
    }
}
