//! Opens the store's file, looks for damage, and puts a damaged file away.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OpenFlags};

use super::error::{is_damage, is_full};
use super::extent::Extent;
use super::{Config, schema, spool, trim};

/// What the name of a damaged store gets behind it.
const DAMAGED: &str = ".damaged";
/// Largest store of which every page is looked at when it is opened.
const CHECKED_BYTES_MAX: i64 = 64 << 20;
/// How long a responder's `sqlite3` may hold us up.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// A store's file as it was opened.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) spool: Extent,
    pub(super) trimmed: trim::Trimmed,
    pub(super) has_left_behind: bool,
}

/// Opens a store, whatever the disk has for it: a sensor that did not start because its disk is full could be kept down
/// by an unprivileged user who fills it. Says in `note` where it is not the store that was there.
pub(super) fn connect_as_can_be(
    path: &Path,
    config: &Config,
    sinks: &[String],
    note: &mut Option<String>,
) -> Result<Opened> {
    let is =
        |error: &anyhow::Error, what: fn(&rusqlite::Error) -> bool| error.downcast_ref().is_some_and(what);
    let error = match connect(path, config, sinks, Home::Shared) {
        Err(error) if is(&error, is_damage) => {
            *note = Some(put_away(path)?);
            match connect(path, config, sinks, Home::Shared) {
                Err(error) => error,
                opened => return opened,
            }
        }
        Err(error) => error,
        opened => return opened,
    };
    if !is(&error, is_full) {
        return Err(error);
    }
    connect(path, config, sinks, Home::Exclusive).or_else(|_| {
        *note = Some(format!(
            "its disk has no room ({error:#}): free space and start the agent again; until then what it remembers is \
             in memory, and alerts are delivered from the alert log"
        ));
        connect(path, config, sinks, Home::Memory)
    })
}

/// Where a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// In its file, which others may read meanwhile.
    Shared,
    /// In its file, without the file beside it that readers share: it is there before it has any room on its disk.
    Exclusive,
    /// In memory, while the disk has no room at all.
    Memory,
}

pub(super) fn connect(path: &Path, config: &Config, sinks: &[String], home: Home) -> Result<Opened> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = if home == Home::Memory {
        Connection::open_in_memory()?
    } else {
        // SQLite would make it readable to others; the files beside it get the mode of this one.
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Connection::open_with_flags(path, flags)?
    };
    if home == Home::Exclusive {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    connection.busy_timeout(BUSY_WAIT)?;
    // Before anything is set, which would change a file that is not ours.
    schema::format(&connection, schema::STEPS)?;
    // Damage that shows only where a page is read would show when it is needed.
    check(&connection, CHECKED_BYTES_MAX)?;
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA journal_size_limit = 8388608;
         PRAGMA cache_size = -1024;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;",
    )?;
    schema::migrate(&mut connection, schema::STEPS)?;
    let spool = spool::open(&mut connection, config.size_max.as_u64(), sinks)?;
    // What is too much stays where the disk has no room for less: rules read no more of it than they may.
    let trimmed = trim::trim(&mut connection, trim::Limits::default())
        .or_else(|error| if is_full(&error) { Ok(trim::Trimmed::default()) } else { Err(error) })?;
    let has_left_behind = trim::has_left_behind(&connection)?;
    Ok(Opened { connection, spool, trimmed, has_left_behind })
}

/// Looks for damage, in a large file but in alerts that wait there: to read hundreds of megabytes takes longer than a start
/// may. Damage in these shows when they are read, and a new store takes the place of this one then.
pub(super) fn check(connection: &Connection, bytes_max: i64) -> rusqlite::Result<()> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let is_large = pragma("page_count")?.saturating_mul(pragma("page_size")?) > bytes_max;
    let mut tables =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'alert' AND name NOT GLOB 'state_left_*'")?;
    let tables = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for checked in if is_large { tables } else { vec!["1".to_owned()] } {
        let check = format!("PRAGMA quick_check({checked})");
        let found: String = connection.query_row(&check, [], |row| row.get(0))?;
        if found != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(found)));
        }
    }
    Ok(())
}

/// Renames a damaged store, with what SQLite has beside it. An earlier one gives way: it is kept to be looked at, not for
/// ever. Says what was done.
pub(super) fn put_away(path: &Path) -> Result<String> {
    let with = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = with(path, DAMAGED);
    for end in ["-wal", "-shm", ""] {
        let (from, to) = (with(path, end), with(&aside, end));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot rename {}", from.display()));
            }
            Err(_) => drop(std::fs::remove_file(to)),
            Ok(()) => {}
        }
    }
    Ok(format!(
        "it was damaged and is put away as {}; a new one was begun: rules learn anew, and alerts of the last day are \
         sent again",
        aside.display()
    ))
}
