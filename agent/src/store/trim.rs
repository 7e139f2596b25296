//! Keeps the state small: when the store is opened, rows beyond this version's limits are left behind, and later
//! deleted in small steps.
//!
//! Deleting a gigabyte takes SQLite longer than a start may take. So the table is renamed, what is kept of it is copied
//! into a new one, and the old one is emptied while the agent runs.

use rusqlite::{Connection, Transaction, params};

use super::schema::STATE;

/// Largest row of the state.
pub(super) const ROW_BYTES_MAX: usize = 16 << 20;
/// Most bytes of one owner's rows.
const SCOPE_BYTES_MAX: u64 = 20 << 20;
/// Most rows of one owner: each costs time at the start, however small it is.
const SCOPE_ROWS_MAX: usize = 65_536;
/// No row takes less.
const ROW_BYTES_LEAST: u64 = 64;
/// Most bytes of all rows before the store is checked row by row.
const STATE_BYTES_MAX: u64 = 64 << 20;
/// Prefix of the names of tables that are left behind; a number follows.
const LEFT_BEHIND: &str = "state_left_behind_";
/// How many rows of such a table are deleted at once.
const DELETED_AT_ONCE: i64 = 128;

/// What was trimmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trimmed {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// The rows of one owner.
struct Scope {
    name: String,
    sizes: Vec<u64>,
}

impl Scope {
    fn bytes(&self) -> u64 {
        self.sizes.iter().sum()
    }
}

/// Leaves behind the rows over the limits, the largest of each owner first.
pub(super) fn trim(connection: &mut Connection, limits: Limits) -> rusqlite::Result<Trimmed> {
    if !is_large(connection, limits)? {
        return Ok(Trimmed::default());
    }
    let mut scopes = scopes(connection)?;
    let is_too_much = |scope: &Scope| {
        scope.bytes() > limits.scope_bytes
            || scope.sizes.len() > limits.scope_rows
            || scope.sizes.iter().any(|size| *size > limits.row_bytes)
    };
    if !scopes.iter().any(is_too_much) && scopes.iter().map(Scope::bytes).sum::<u64>() <= limits.bytes {
        return Ok(Trimmed::default());
    }
    let transaction = connection.transaction()?;
    let old = unused_name(&transaction)?;
    transaction.execute_batch(&format!("ALTER TABLE state RENAME TO {old}; {STATE}"))?;
    let mut trimmed = Trimmed::default();
    let each_max = limits.scope_bytes.min(limits.bytes / (scopes.len() as u64).max(1)).max(1);
    let all_fit =
        scopes.iter().map(|scope| scope.bytes().min(limits.scope_bytes)).sum::<u64>() <= limits.bytes;
    for scope in &mut scopes {
        let bytes_max = if all_fit { limits.scope_bytes } else { each_max };
        let kept = keep(&transaction, &old, scope, bytes_max, limits)?;
        trimmed.rows += scope.sizes.len() as u64 - kept.rows;
        trimmed.bytes += scope.bytes() - kept.bytes;
    }
    transaction.commit()?;
    Ok(trimmed)
}

/// Deletes some rows of what was left behind. Returns whether there are more.
pub(super) fn delete_some(connection: &Connection) -> rusqlite::Result<bool> {
    let Some(table) = left_behind(connection)?.pop() else { return Ok(false) };
    let deleted = connection.execute(
        &format!(
            "DELETE FROM {table} WHERE (scope, key) IN (SELECT scope, key FROM {table} LIMIT {DELETED_AT_ONCE})"
        ),
        [],
    )?;
    if deleted == 0 {
        connection.execute_batch(&format!("DROP TABLE {table}"))?;
    }
    Ok(true)
}

/// Whether rows that were left behind still exist.
pub(super) fn has_left_behind(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(!left_behind(connection)?.is_empty())
}

/// Bounds in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) row_bytes: u64,
    pub(super) scope_bytes: u64,
    pub(super) scope_rows: usize,
    pub(super) bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            row_bytes: ROW_BYTES_MAX as u64,
            scope_bytes: SCOPE_BYTES_MAX,
            scope_rows: SCOPE_ROWS_MAX,
            bytes: STATE_BYTES_MAX,
        }
    }
}

/// Whether the file is so large that its rows must be checked.
fn is_large(connection: &Connection, limits: Limits) -> rusqlite::Result<bool> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = pragma("page_count")? - pragma("freelist_count")?;
    let bytes = pages.saturating_mul(pragma("page_size")?).unsigned_abs();
    let of_rows = limits.scope_rows as u64 * ROW_BYTES_LEAST;
    Ok(bytes > limits.row_bytes.min(limits.scope_bytes).min(of_rows))
}

/// How large the rows of each owner are. The values themselves are not read.
fn scopes(connection: &Connection) -> rusqlite::Result<Vec<Scope>> {
    let mut statement =
        connection.prepare("SELECT scope, octet_length(key) + length(value) FROM state ORDER BY scope")?;
    let mut rows = statement.query([])?;
    let mut scopes: Vec<Scope> = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, size) = (row.get_ref(0)?.as_str()?, row.get::<_, i64>(1)?.unsigned_abs());
        match scopes.last_mut() {
            Some(last) if last.name == name => last.sizes.push(size),
            _ => scopes.push(Scope { name: name.to_owned(), sizes: vec![size] }),
        }
    }
    Ok(scopes)
}

/// Copies the smallest rows of an owner, as many as fit.
fn keep(
    transaction: &Transaction<'_>,
    old: &str,
    scope: &mut Scope,
    bytes_max: u64,
    limits: Limits,
) -> rusqlite::Result<Trimmed> {
    scope.sizes.sort_unstable();
    let mut kept = Trimmed::default();
    let fitting = scope.sizes.iter().take_while(|size| **size <= limits.row_bytes);
    for size in fitting.take(limits.scope_rows) {
        if kept.bytes + size > bytes_max {
            break;
        }
        kept.bytes += size;
        kept.rows += 1;
    }
    let largest = kept.rows.checked_sub(1).map_or(0, |last| scope.sizes[last as usize]);
    let of_largest = scope.sizes[..kept.rows as usize].iter().filter(|size| **size == largest).count();
    let copy = |condition: &str, count: i64| {
        transaction.execute(
            &format!(
                "INSERT INTO state SELECT scope, key, value FROM {old}
                 WHERE scope = ?1 AND octet_length(key) + length(value) {condition} ?2 LIMIT ?3"
            ),
            params![scope.name, i64::try_from(largest).unwrap_or(i64::MAX), count],
        )
    };
    copy("<", -1)?;
    copy("=", i64::try_from(of_largest).unwrap_or(i64::MAX))?;
    Ok(kept)
}

fn left_behind(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut names: Vec<_> = names.collect::<rusqlite::Result<_>>()?;
    names.retain(|name| name.starts_with(LEFT_BEHIND));
    names.sort();
    Ok(names)
}

fn unused_name(connection: &Connection) -> rusqlite::Result<String> {
    let known = left_behind(connection)?;
    let name = |number: usize| format!("{LEFT_BEHIND}{number}");
    Ok((0..=known.len()).map(name).find(|name| !known.contains(name)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { row_bytes: 5000, scope_bytes: 20_000, scope_rows: 150, bytes: 60_000 };

    fn filled(rows: &[(&str, usize, usize)]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(STATE).unwrap();
        for (scope, count, size) in rows {
            for number in 0..*count {
                let key = format!("{size}-{number:06}");
                let value = vec![0u8; size - key.len()];
                connection
                    .execute("INSERT INTO state VALUES (?1, ?2, ?3)", params![scope, key, value])
                    .unwrap();
            }
        }
        connection
    }

    fn left(connection: &Connection, scope: &str) -> (i64, Option<i64>) {
        let select = "SELECT count(*), max(length(key) + length(value)) FROM state WHERE scope = ?1";
        connection.query_row(select, [scope], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    #[test]
    fn the_largest_rows_of_an_owner_over_its_limit_are_left_behind() {
        let mut connection = filled(&[("a", 50, 100), ("b", 50, 100), ("b", 400, 1000), ("c", 3, 9000)]);
        let trimmed = trim(&mut connection, LIMITS).unwrap();
        assert_eq!(trimmed, Trimmed { rows: 385 + 3, bytes: 385 * 1000 + 27_000 });
        assert_eq!(left(&connection, "a"), (50, Some(100)));
        assert_eq!(left(&connection, "b"), (65, Some(1000)));
        assert_eq!(left(&connection, "c"), (0, None));
        assert_eq!(trim(&mut connection, LIMITS).unwrap(), Trimmed::default());
        let mut steps = 0;
        while delete_some(&connection).unwrap() {
            steps += 1;
        }
        assert!(steps > 3 && !has_left_behind(&connection).unwrap(), "{steps}");
        assert_eq!(left(&connection, "b"), (65, Some(1000)));
    }

    #[test]
    fn rows_of_an_owner_are_bounded_by_their_number_too() {
        let mut connection = filled(&[("a", 400, 40), ("b", 100, 40)]);
        assert_eq!(trim(&mut connection, LIMITS).unwrap(), Trimmed { rows: 250, bytes: 250 * 40 });
        assert_eq!((left(&connection, "a").0, left(&connection, "b").0), (150, 100));
    }

    #[test]
    fn many_owners_together_are_bounded_too() {
        let names: Vec<_> = (0..10).map(|number| format!("rule/{number}")).collect();
        let rows: Vec<_> = names.iter().map(|name| (name.as_str(), 15, 1000)).collect();
        let mut connection = filled(&rows);
        assert_eq!(trim(&mut connection, LIMITS).unwrap().rows, 90);
        assert!(names.iter().all(|name| left(&connection, name).0 == 6));
    }
}
