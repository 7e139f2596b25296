//! The tables, and how a store of an older version becomes one of this version.

use anyhow::{Context, Result, bail};
use rusqlite::Connection;

/// Marks a database as ours: the letters `LWNG`.
const APPLICATION_ID: i32 = 0x4c57_4e47;

/// The table of what must survive a restart, as the first version created it. It is recreated when rows are left
/// behind.
pub(super) const STATE: &str = "
    CREATE TABLE state (
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (scope, key)
    ) WITHOUT ROWID;
";

/// What made each version from the one before; the version is the number of steps taken. A released step never changes,
/// because its result is on disks.
pub(super) const STEPS: &[&str] = &["
    -- What must survive a restart: rule state, cursors of sources. Each owner has a scope.
    CREATE TABLE state (
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (scope, key)
    ) WITHOUT ROWID;

    -- Alerts, to detect repetitions, and among them those that are still to be delivered.
    CREATE TABLE alert (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        time INTEGER NOT NULL,
        -- 0: nothing is left to do; 1: the document is here for the sinks; 2: it is in the log only.
        place INTEGER NOT NULL,
        document BLOB
    );

    -- Up to which alert each sink has delivered.
    CREATE TABLE cursor (
        sink TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL
    ) WITHOUT ROWID;

    -- Up to which place of the alert log alerts are known, and up to which their documents were taken over.
    CREATE TABLE log_position (
        reach TEXT PRIMARY KEY,
        file TEXT NOT NULL,
        offset INTEGER NOT NULL
    ) WITHOUT ROWID;
"];

/// The format of a store that was made by this many [`STEPS`].
///
/// # Errors
/// It belongs to another program or to a newer version. It was not changed.
pub(super) fn format(connection: &Connection, steps: &[&str]) -> Result<usize> {
    let of = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let (application, version) = (of("application_id")?, of("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && tables > 0 {
        bail!("it is a database of another program; set `state_dir` to a directory of Lapwing's own");
    }
    let (version, newest) = (usize::try_from(version).unwrap_or(usize::MAX), steps.len());
    if version > newest {
        bail!(
            "it has format {version} and this version of Lapwing knows formats up to {newest}: install the newer \
             Lapwing that wrote it, or move the file away and lose what rules have learned"
        );
    }
    Ok(version)
}

/// Brings the tables to the last of the given versions, all or nothing.
///
/// # Errors
/// As of [`format()`], or the file cannot be written.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<()> {
    let (version, newest) = (format(connection, steps)?, steps.len());
    if version == newest {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for (index, step) in steps.iter().enumerate().skip(version) {
        transaction
            .execute_batch(step)
            .with_context(|| format!("cannot migrate it to format {}", index + 1))?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", i32::try_from(newest).unwrap_or(i32::MAX))?;
    transaction.commit()?;
    if version > 0 {
        tracing::info!("migrated the store from format {version} to format {newest}");
    }
    Ok(())
}
