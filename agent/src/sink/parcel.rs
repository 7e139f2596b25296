//! Alerts in delivery: the form in which each is sent, and its outcome.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Verdict;
use crate::alert::Form;
use crate::store::Spooled;

/// An alert in delivery.
pub(super) struct Parcel {
    pub(super) alert: Spooled,
    form: Form,
    /// The document in this form.
    json: Bytes,
    pub(super) failure: Option<Failure>,
}

/// Why an alert was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Upstream accepts no more now.
    Busy(String),
    /// It failed and may be accepted later.
    Failed(String),
    /// It was rejected in every form.
    Rejected(String),
}

impl Failure {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Busy(reason) | Self::Failed(reason) | Self::Rejected(reason) => reason,
        }
    }
}

impl Parcel {
    fn new(alert: Spooled) -> Self {
        Self { json: alert.json.clone(), alert, form: Form::default(), failure: None }
    }

    /// What is sent.
    fn sent(&self) -> Spooled {
        Spooled { sequence: self.alert.sequence, id: self.alert.id.clone(), json: self.json.clone() }
    }

    /// Switches to the next smaller form, if there is one.
    fn shrink(&mut self, why: &str) -> bool {
        let Some(form) = self.form.smaller() else { return false };
        (self.form, self.json) = (form, form.of(&self.alert.json, why));
        true
    }
}

/// Alerts that are sent together, and what became of them.
pub(super) struct Round {
    /// Whether they are from the spool and not dead letters.
    pub(super) is_spooled: bool,
    /// Those that are still to be sent in this pass, in order.
    left: VecDeque<Parcel>,
    /// Those that were not accepted in this pass.
    pub(super) failed: Vec<Parcel>,
    /// How many were accepted, how many of them had been delivered before, and how many were sent in a smaller form,
    /// and why.
    pub(super) taken: u64,
    pub(super) known: u64,
    pub(super) smaller: u64,
    pub(super) smaller_for: Option<String>,
}

impl Round {
    pub(super) fn new(alerts: Vec<Spooled>, is_spooled: bool) -> Self {
        let left = alerts.into_iter().map(Parcel::new).collect();
        Self { is_spooled, left, failed: Vec::new(), taken: 0, known: 0, smaller: 0, smaller_for: None }
    }

    /// Those that failed are to be sent again.
    pub(super) fn again(&mut self) {
        self.left.extend(self.failed.drain(..).map(|parcel| Parcel { failure: None, ..parcel }));
    }

    /// The alerts of the next request, at most `size`; none if each was sent.
    pub(super) fn next(&self, size: usize) -> Vec<Spooled> {
        self.left.iter().take(size).map(Parcel::sent).collect()
    }

    /// The first that is neither accepted nor rejected for good.
    pub(super) fn first(&self) -> Option<i64> {
        self.failed.iter().chain(&self.left).map(|parcel| parcel.alert.sequence).min()
    }

    /// Applies the verdicts for the first `count` remaining alerts. A rejected one is resent in a smaller form.
    pub(super) fn apply(&mut self, count: usize, verdicts: Vec<Verdict>) {
        let mut again = Vec::new();
        let verdicts = verdicts.into_iter().map(Some).chain(std::iter::repeat(None));
        let parcels: Vec<_> = self.left.drain(..count.min(self.left.len())).collect();
        for (mut parcel, verdict) in parcels.into_iter().zip(verdicts) {
            let failure = match verdict {
                Some(Verdict::Delivered) => {
                    self.take(&parcel);
                    continue;
                }
                Some(Verdict::Known) => {
                    (self.taken, self.known) = (self.taken + 1, self.known + 1);
                    continue;
                }
                Some(Verdict::Rejected(reason) | Verdict::Unfit(reason)) if parcel.shrink(&reason) => {
                    self.smaller_for = Some(reason);
                    again.push(parcel);
                    continue;
                }
                Some(Verdict::Rejected(reason)) => Failure::Rejected(reason),
                Some(Verdict::Unfit(reason) | Verdict::Failed(reason)) => Failure::Failed(reason),
                Some(Verdict::Busy(reason)) => Failure::Busy(reason),
                None => Failure::Failed("upstream did not say what became of it".to_owned()),
            };
            parcel.failure = Some(failure);
            self.failed.push(parcel);
        }
        again.into_iter().rev().for_each(|parcel| self.left.push_front(parcel));
    }

    fn take(&mut self, parcel: &Parcel) {
        self.taken += 1;
        self.smaller += u64::from(parcel.form != Form::Whole);
    }
}
