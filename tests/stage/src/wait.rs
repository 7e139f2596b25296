//! Waiting for something to be so.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(1);

/// Waits until `condition` gives something.
///
/// # Errors
/// It gave nothing for as long as `patience`; `what` says what was waited for. Or it failed itself.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if start.elapsed() > patience {
            bail!("{what} did not come within {} s", patience.as_secs());
        }
        std::thread::sleep(STEP);
    }
}
