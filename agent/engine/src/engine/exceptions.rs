//! The exceptions of an engine: which apply to a rule, and how many alerts each has suppressed.

use std::sync::Arc;

use crate::detect::Matcher;
use crate::event::{Event, Timestamp};
use crate::rule::{Exception, Rule};

/// All exceptions of an engine.
#[derive(Default)]
pub(super) struct ExceptionSet {
    list: Vec<Counted>,
}

struct Counted {
    exception: Arc<Exception>,
    matcher: Matcher,
    count: u64,
}

impl ExceptionSet {
    pub(super) fn new(exceptions: &[Arc<Exception>]) -> Self {
        let counted = |exception: &Arc<Exception>| Counted {
            exception: exception.clone(),
            matcher: Matcher::new([&exception.condition]),
            count: 0,
        };
        Self { list: exceptions.iter().map(counted).collect() }
    }

    /// The indices of the exceptions for a rule.
    pub(super) fn of(&self, rule: &Rule) -> Vec<usize> {
        let exceptions = self.list.iter().enumerate();
        exceptions.filter(|(_, counted)| counted.exception.is_for(rule)).map(|(place, _)| place).collect()
    }

    /// Whether one of these exceptions matches one of the events at this time. Only the first match is counted.
    pub(super) fn suppress<'a>(
        &mut self,
        places: &[usize],
        time: Timestamp,
        events: impl Iterator<Item = &'a Event> + Clone,
    ) -> bool {
        places.iter().any(|place| {
            let counted = &mut self.list[*place];
            let suppressed = !counted.exception.is_over(time)
                && events.clone().any(|event| counted.matcher.matches(event));
            counted.count += u64::from(suppressed);
            suppressed
        })
    }

    /// The exceptions, each with the number of suppressed alerts or events.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&Arc<Exception>, u64)> {
        self.list.iter().map(|counted| (&counted.exception, counted.count))
    }
}
