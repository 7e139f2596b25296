//! An alert in two lines: time, severity and rule, then the reason.

use super::document::Summary;
use super::words::Precision;
use super::{Severity, words};
use crate::terminal::{Look, Screen, escape};

/// Length of the id in the list; enough for `lapwing alerts ID`.
const ID_CHARS: usize = 8;
/// Width of the columns before the rule's name.
const NAME_COLUMN: usize = 42;

/// Renders the alert as two lines.
pub(super) fn render(screen: Screen, alert: &Summary) -> String {
    let time = alert
        .time()
        .map_or_else(|| "no time".to_owned(), |time| words::moment(&time.to_string(), Precision::Seconds));
    let severity = Severity::of(alert.severity());
    let id: String = alert.id().chars().take(ID_CHARS).collect();
    let name = escape(alert.rule_name());
    let suppressed = match alert.suppressed() {
        0 => String::new(),
        count => format!(" (+{count} suppressed)"),
    };
    format!(
        "{time:<20}  {}  {}  {}\n  {}\n",
        screen.paint(severity.look(), &format!("{:<8}", severity.name())),
        screen.paint(Look::Faint, &format!("{:<8}", escape(&id))),
        screen.paint(Look::Strong, &screen.fit(&format!("{name}{suppressed}"), NAME_COLUMN)),
        screen.fit(&escape(alert.reason()), 2),
    )
}

impl Severity {
    /// The style of the level.
    pub(super) fn look(self) -> Look {
        match self {
            Self::Low => Look::Faint,
            Self::Medium => Look::Notice,
            Self::High => Look::Bad,
            Self::Critical => Look::Worst,
        }
    }
}
