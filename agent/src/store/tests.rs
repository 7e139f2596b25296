//! The store by itself: what is kept, what is rejected, and alerts that do not fit.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use std::path::Path;

use anyhow::Result;
use rusqlite::Connection;

use super::error::is_damage;
use super::*;
use crate::alert::AlertDocument;
use crate::testing::{alert, id};

fn open(directory: &Path, size_max: u64, sinks: &[&str]) -> Result<Store> {
    let sinks: Vec<String> = sinks.iter().map(|&sink| sink.to_owned()).collect();
    Store::open(directory, &Config { size_max: ByteSize::b(size_max) }, &sinks)
}

fn spool(store: &mut Store, numbers: std::ops::Range<u64>) -> Vec<DocumentLocation> {
    let mut changes = store.change().unwrap();
    let places =
        numbers.map(|number| changes.alert(&alert(number), DocumentLocation::Spool).unwrap()).collect();
    changes.commit().unwrap();
    places
}

fn ids(store: &Store, after: i64) -> Vec<String> {
    store.read(after, usize::MAX, usize::MAX).unwrap().into_iter().map(|alert| alert.id).collect()
}

fn refusal(directory: &Path) -> String {
    format!("{:#}", open(directory, 1 << 20, &["siem"]).err().unwrap())
}

#[test]
fn state_is_kept_by_scope_and_read_in_pages() {
    let folder = TempDir::new().unwrap();
    let change = |scope: &str, key: &str, value: Option<&str>| Change {
        scope: scope.to_owned(),
        key: key.to_owned(),
        value: value.map(|value| value.as_bytes().to_vec()),
    };
    let mut store = open(folder.path(), 1 << 20, &[]).unwrap();
    let changes = store.change().unwrap();
    for (scope, key, value) in [
        ("a", "1", Some("x")),
        ("a", "2", Some("y")),
        ("b", "1", Some("z")),
        ("a", "1", Some("w")),
        ("b", "1", None),
    ] {
        changes.state(&change(scope, key, value)).unwrap();
    }
    changes.commit().unwrap();
    store.change().unwrap().state(&change("a", "3", Some("never committed"))).unwrap();
    drop(store);
    let store = open(folder.path(), 1 << 20, &[]).unwrap();
    let row = |key: &str, value: &str| (key.to_owned(), value.as_bytes().to_vec());
    assert_eq!(store.rows("a", None, 1).unwrap(), [row("1", "w")]);
    assert_eq!(store.rows("a", Some("1"), 9).unwrap(), [row("2", "y")]);
    assert_eq!(store.rows("b", None, 9).unwrap(), []);
}

#[test]
fn only_the_agent_can_read_it() {
    let folder = TempDir::new().unwrap();
    let directory = folder.path().join("deep/state");
    let mut store = open(&directory, 1 << 20, &["siem"]).unwrap();
    spool(&mut store, 0..1);
    for entry in fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[test]
fn a_state_directory_has_one_agent() {
    let folder = TempDir::new().unwrap();
    let first = open(folder.path(), 1 << 20, &[]).unwrap();
    let refused = refusal(folder.path());
    assert!(refused.contains(&format!("another lapwing (process {})", std::process::id())), "{refused}");
    drop(first);
    open(folder.path(), 1 << 20, &[]).unwrap();
}

#[test]
fn foreign_and_newer_files_are_refused_and_left_alone() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &str); 2] = [
        (
            "newer",
            |path| Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap(),
            "format 99",
        ),
        (
            "foreign",
            |path| {
                fs::remove_file(path).unwrap();
                Connection::open(path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
            },
            "a database of another program",
        ),
    ];
    for (name, spoil, expected) in cases {
        let folder = TempDir::new().unwrap();
        drop(open(folder.path(), 1 << 20, &["siem"]).unwrap());
        let path = folder.path().join(FILE);
        spoil(&path);
        let before = fs::read(&path).unwrap();
        let refused = refusal(folder.path());
        assert!(refused.contains(expected), "{name}: {refused}");
        assert!(fs::read(&path).unwrap() == before, "{name}: the file was changed");
    }
}

/// A damaged store does not prevent the start: it is quarantined for any kind of damage.
#[test]
fn a_damaged_store_is_replaced() {
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(&str, Spoil); 5] = [
        ("no database", |bytes| bytes.fill(b'x')),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("first page", |bytes| bytes[..4096].fill(0xa5)),
        ("flipped", |bytes| bytes[100..].iter_mut().for_each(|byte| *byte ^= 0x5a)),
        ("one page", |bytes| bytes[4096..8192].fill(0)),
    ];
    for (name, spoil) in cases {
        let folder = TempDir::new().unwrap();
        let mut store = open(folder.path(), 1 << 20, &["siem"]).unwrap();
        spool(&mut store, 0..20);
        drop(store);
        let path = folder.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        spoil(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let mut store =
            open(folder.path(), 1 << 20, &["siem"]).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let aside = store.quarantined().unwrap_or_else(|| panic!("{name}: nothing is said"));
        assert!(aside.contains("lapwing.db.damaged"), "{name}: {aside}");
        assert!(fs::read(folder.path().join("lapwing.db.damaged")).unwrap() == bytes, "{name}");
        assert_eq!(spool(&mut store, 30..32), [DocumentLocation::Spool; 2], "{name}");
        drop(store);
        let store = open(folder.path(), 1 << 20, &["siem"]).unwrap();
        assert_eq!((store.quarantined(), ids(&store, 0).len()), (None, 2), "{name}");
    }
}

/// The alerts of a large store are not checked when it is opened; everything else is.
#[test]
fn the_rules_state_is_checked_for_damage_in_a_large_store_too() {
    let folder = TempDir::new().unwrap();
    let mut store = open(folder.path(), 1 << 20, &["siem"]).unwrap();
    spool(&mut store, 0..20);
    let changes = store.change().unwrap();
    for number in 0..200 {
        let (scope, key) = ("rule/1".to_owned(), format!("{number:0>200}"));
        changes.state(&Change { scope, key, value: Some(vec![b'x'; 100]) }).unwrap();
    }
    changes.commit().unwrap();
    let root = |table: &str| {
        let select = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        store.connection.query_row(select, [table], |row| row.get::<_, u32>(0)).unwrap() as usize
    };
    let (state, alert) = (root("state"), root("alert"));
    drop(store);
    let path = folder.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    for (page, is_seen) in [(state, true), (alert, false)] {
        let mut bytes = whole.clone();
        bytes[(page - 1) * 4096..page * 4096].fill(0xa5);
        fs::write(&path, &bytes).unwrap();
        let connection = Connection::open(&path).unwrap();
        assert_eq!(
            super::open::check(&connection, 1).is_err_and(|error| is_damage(&error)),
            is_seen,
            "{page}"
        );
        assert!(super::open::check(&connection, i64::MAX).is_err(), "{page}");
    }
}

#[test]
fn a_replaced_store_reuses_no_number() {
    let folder = TempDir::new().unwrap();
    let mut store = open(folder.path(), 1 << 20, &["siem"]).unwrap();
    spool(&mut store, 0..5);
    let delivered = ("siem".to_owned(), 3);
    store.renew(std::iter::once((&delivered.0, &delivered.1)), 0).unwrap();
    assert_eq!(store.cursor("siem").unwrap(), 3);
    spool(&mut store, 5..7);
    let numbers: Vec<_> = store.read(3, 9, usize::MAX).unwrap().iter().map(|alert| alert.sequence).collect();
    assert_eq!(numbers, [6, 7]);
}

#[test]
fn an_older_store_is_brought_up_to_date() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    let mut connection = Connection::open(&path).unwrap();
    schema::migrate(&mut connection, schema::STEPS).unwrap();
    connection.execute("INSERT INTO state VALUES ('rule', 'k', x'01')", []).unwrap();
    let mut steps = schema::STEPS.to_vec();
    steps.push("ALTER TABLE state ADD COLUMN note TEXT; CREATE TABLE more (x);");
    schema::migrate(&mut connection, &steps).unwrap();
    let kept: (Vec<u8>, Option<String>) = connection
        .query_row("SELECT value, note FROM state", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(kept, (vec![1], None));
    // A step that fails leaves the version before it.
    steps.push("CREATE TABLE fine (x); CREATE TABLE more (x);");
    assert!(schema::migrate(&mut connection, &steps).is_err());
    steps.pop();
    schema::migrate(&mut connection, &steps).unwrap();
    assert!(schema::migrate(&mut connection, schema::STEPS).is_err(), "an older program refuses it");
}

#[test]
fn an_alert_is_spooled_until_every_sink_has_it() {
    let folder = TempDir::new().unwrap();
    let mut store = open(folder.path(), 1 << 20, &["a", "b"]).unwrap();
    spool(&mut store, 0..3);
    spool(&mut store, 1..4);
    assert_eq!(ids(&store, 0), [id(0), id(1), id(2), id(3)], "each once, in order");
    let last = store.read(0, 3, usize::MAX).unwrap().pop().unwrap().sequence;
    for (sink, spooled) in [("a", 4), ("b", 1)] {
        let mut changes = store.change().unwrap();
        changes.acknowledge(sink, last).unwrap();
        changes.commit().unwrap();
        assert_eq!(store.spooled().0, spooled, "after {sink}");
    }
    assert_eq!(ids(&store, last), [id(3)]);
    assert!(store.knows(&id(0)).unwrap() && !store.knows(&id(9)).unwrap());
    drop(store);
    // A removed sink blocks nothing, and a new one begins with the next alert.
    let mut store = open(folder.path(), 1 << 20, &["a", "c"]).unwrap();
    spool(&mut store, 4..5);
    assert_eq!(ids(&store, store.cursor("a").unwrap()), [id(3), id(4)]);
    assert_eq!(ids(&store, store.cursor("c").unwrap()), [id(4)]);
    drop(store);
    let store = open(folder.path(), 1 << 20, &[]).unwrap();
    assert_eq!(store.spooled(), (0, 0), "no sink waits for it");
}

#[test]
fn batches_hold_as_much_as_fits_and_at_least_one() {
    let folder = TempDir::new().unwrap();
    let mut store = open(folder.path(), 1 << 20, &["siem"]).unwrap();
    spool(&mut store, 0..5);
    let bytes = alert(0).json.len();
    for (count_max, bytes_max, expected) in
        [(2, usize::MAX, 2), (9, bytes * 3, 3), (9, bytes * 3 - 1, 2), (9, 1, 1)]
    {
        assert_eq!(store.read(0, count_max, bytes_max).unwrap().len(), expected);
    }
}

#[test]
fn alerts_that_do_not_fit_stay_in_the_log_and_in_order() {
    let folder = TempDir::new().unwrap();
    let bytes = alert(0).json.len() as u64;
    let mut store = open(folder.path(), bytes * 4, &["siem"]).unwrap();
    let places = spool(&mut store, 0..6);
    assert_eq!(places, [[DocumentLocation::Spool; 4].as_slice(), &[DocumentLocation::Log; 2]].concat());
    assert_eq!((store.spooled().0, store.waiting()), (4, 2));
    assert_eq!(ids(&store, 0).len(), 4);
    assert!(!store.has_room());
    let mut changes = store.change().unwrap();
    changes.acknowledge("siem", 3).unwrap();
    changes.commit().unwrap();
    assert!(store.has_room());
    // Later alerts do not overtake.
    let mut changes = store.change().unwrap();
    assert_eq!(changes.alert(&alert(6), DocumentLocation::Log).unwrap(), DocumentLocation::Log);
    changes.commit().unwrap();
    assert_eq!(ids(&store, 3), [id(3)]);
    assert_eq!(spool(&mut store, 4..7), [DocumentLocation::Spool; 3]);
    assert_eq!(ids(&store, 3), [id(3), id(4), id(5), id(6)]);
    assert_eq!(store.waiting(), 0);
}

#[test]
fn known_alerts_are_bounded() {
    let folder = TempDir::new().unwrap();
    let mut store = open(folder.path(), 1 << 20, &[]).unwrap();
    let oldest = alert(0);
    let mut changes = store.change().unwrap();
    changes.recall(&oldest).unwrap();
    // As if so many alerts had been added in between.
    changes.number_from(100_002);
    for number in 1..3000 {
        changes.recall(&AlertDocument { id: id(number), ..oldest.clone() }).unwrap();
    }
    changes.commit().unwrap();
    assert!(!store.knows(&oldest.id).unwrap());
    assert!(store.knows(&id(1)).unwrap() && store.knows(&id(2999)).unwrap());
}

#[test]
fn the_file_shrinks_when_rows_go_and_no_row_is_too_large() {
    let folder = TempDir::new().unwrap();
    let mut store = open(folder.path(), 1 << 20, &[]).unwrap();
    let pages = |store: &Store| -> i64 {
        store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap()
    };
    let row = |number: usize, value| Change { scope: "a".to_owned(), key: number.to_string(), value };
    let set = |store: &mut Store, numbers: std::ops::Range<usize>, bytes: Option<usize>| {
        let changes = store.change().unwrap();
        numbers.for_each(|number| changes.state(&row(number, bytes.map(|bytes| vec![7; bytes]))).unwrap());
        changes.commit().unwrap();
    };
    set(&mut store, 0..64, Some(1 << 20));
    let most = pages(&store);
    set(&mut store, 0..64, None);
    (0..16).for_each(|_| set(&mut store, 0..1, None));
    assert!(pages(&store) < most * 2 / 3, "{} of {most}", pages(&store));
    set(&mut store, 99..100, Some(trim::ROW_BYTES_MAX));
    assert_eq!((store.rows("a", None, 9).unwrap().len(), store.rows_dropped()), (0, 1));
}
