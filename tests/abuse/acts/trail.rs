//! Files of a trail, as a user of an account can have AWS write them.

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;

use jiff::{Timestamp, ToSpan as _};
use lapwing_stage::trail::{call, file, gzip};
use serde_json::{Value as Json, json};

use super::{Order, TRAIL};

/// Bytes of the largest member that AWS keeps, nearly.
const MEMBER_BYTES: usize = 95_000;
/// Small records for each large one.
const SMALL: u32 = 10;
/// Objects in each other.
const LEVELS: usize = 100;
/// Bytes of a record that is one text.
const HUGE_BYTES: usize = 20 << 20;

/// How many files there are.
pub(crate) const FILES: usize = 5;

/// A file of each kind: records that are large, many, deep, huge, or none.
pub(super) fn hostile_files(order: &Order) -> io::Result<()> {
    let folder = PathBuf::from(env::var_os(TRAIL).ok_or(io::ErrorKind::NotFound)?);
    let records = |count: u32, more: fn(&mut Json)| {
        let records: Vec<_> = (0..count).map(|number| record(number, more)).collect();
        file(&records)
    };
    let files: [(&str, Vec<u8>); FILES] = [
        (
            "large",
            records(order.count, |record| {
                record["requestParameters"] = json!({"p": "p".repeat(MEMBER_BYTES)})
            }),
        ),
        ("many", records(order.count * SMALL, |_| {})),
        ("deep", records(order.count, |record| record["requestParameters"] = deep())),
        ("huge", records(1, |record| record["errorMessage"] = "m".repeat(HUGE_BYTES).into())),
        ("none", vec![b'['; 1 << 20]),
    ];
    for (name, bytes) in files {
        let (hidden, shown) = (folder.join(format!(".{name}")), folder.join(format!("{name}.json.gz")));
        fs::write(&hidden, gzip(&bytes).map_err(io::Error::other)?)?;
        fs::rename(hidden, shown)?;
    }
    Ok(())
}

/// A call by a user of its own that fails in a way of its own.
fn record(number: u32, more: fn(&mut Json)) -> Json {
    let mut record = call(Timestamp::now() - 1.hours() + i64::from(number / 100).seconds(), "Cmd");
    record["errorCode"] = format!("Error{number}").into();
    record["errorMessage"] = format!("{number}{}", "m".repeat(1000)).into();
    record["userIdentity"]["userName"] = format!("user{number}").into();
    record["userIdentity"]["arn"] = format!("arn:aws:iam::111122223333:user/user{number}").into();
    record["eventID"] = format!("hostile-{number}").into();
    more(&mut record);
    record
}

fn deep() -> Json {
    (0..LEVELS).fold(json!("end"), |inner, _| json!({ "level": inner }))
}
