//! Exceptions at work: which of them excuse what a rule found, and how often each did.

use std::sync::Arc;

use crate::detect::Matcher;
use crate::event::{Event, Timestamp};
use crate::rule::{Exception, Rule};

/// All exceptions of an engine.
#[derive(Default)]
pub(super) struct Excuses {
    list: Vec<Excuse>,
}

struct Excuse {
    exception: Arc<Exception>,
    matcher: Matcher,
    count: u64,
}

impl Excuses {
    pub(super) fn new(exceptions: &[Arc<Exception>]) -> Self {
        let excuse = |exception: &Arc<Exception>| Excuse {
            exception: exception.clone(),
            matcher: Matcher::new([&exception.condition]),
            count: 0,
        };
        Self { list: exceptions.iter().map(excuse).collect() }
    }

    /// Those that are for a rule, by their places.
    pub(super) fn of(&self, rule: &Rule) -> Vec<usize> {
        let excuses = self.list.iter().enumerate();
        excuses.filter(|(_, excuse)| excuse.exception.is_for(rule)).map(|(place, _)| place).collect()
    }

    /// Whether one of these excuses one of the events at this time. Only the first that does is counted.
    pub(super) fn excuse<'a>(
        &mut self,
        places: &[usize],
        time: Timestamp,
        events: impl Iterator<Item = &'a Event> + Clone,
    ) -> bool {
        places.iter().any(|place| {
            let excuse = &mut self.list[*place];
            let excused =
                !excuse.exception.is_over(time) && events.clone().any(|event| excuse.matcher.matches(event));
            excuse.count += u64::from(excused);
            excused
        })
    }

    /// Each with how often it excused something.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&Arc<Exception>, u64)> {
        self.list.iter().map(|excuse| (&excuse.exception, excuse.count))
    }
}
