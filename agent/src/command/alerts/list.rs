//! An alert in two lines: when, how bad and what, then why.

use super::document::Summary;
use super::words::Precision;
use super::{Severity, words};
use crate::terminal::{Look, Screen, escape};

/// How much of an id is shown; enough for `lapwing alerts ID`.
const ID_CHARS: usize = 8;
/// Columns before a rule's name.
const NAME_COLUMN: usize = 42;

/// The alert as two lines.
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
    /// How the level looks.
    pub(super) fn look(self) -> Look {
        match self {
            Self::Low => Look::Faint,
            Self::Medium => Look::Notice,
            Self::High => Look::Bad,
            Self::Critical => Look::Worst,
        }
    }
}
