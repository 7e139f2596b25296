//! Properties of the engine on random inputs and on those that once broke one. `cargo xtask fuzz` tries the same
//! properties on millions of inputs, led by coverage; `docs/fuzzing.md` describes both.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod property;

use std::fs;
use std::path::{Path, PathBuf};

use arbitrary::Unstructured;
use proptest::prelude::any;
use proptest::test_runner::{Config, TestError, TestRunner};

use property::Property;

/// Random inputs of each property in one run of the tests: seconds of them.
const CASES: u32 = 128;
/// Longest random input, in bytes.
const BYTES_MAX: usize = 512;
/// Most edits that make a random text of a right one.
const EDITS_MAX: usize = 4;

#[test]
fn what_once_failed_holds() {
    for property in property::ALL {
        for path in inputs(property) {
            let bytes = fs::read(&path).unwrap();
            let held = std::panic::catch_unwind(|| (property.check)(&bytes));
            assert!(held.is_ok(), "{} breaks {}", path.display(), property.name);
        }
    }
}

#[test]
fn properties_hold_for_random_choices() {
    for property in property::ALL.iter().filter(|property| texts(property).is_empty()) {
        try_out(property, <[u8]>::to_vec);
    }
}

#[test]
fn properties_hold_for_mangled_texts() {
    for property in property::ALL {
        let texts = texts(property);
        if !texts.is_empty() {
            try_out(property, |choices| mangled(&texts, &mut Unstructured::new(choices)).unwrap());
        }
    }
}

/// Tries a property on random inputs. One that breaks it is made as small as can be and left in a file.
fn try_out(property: &Property, input: impl Fn(&[u8]) -> Vec<u8>) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let choices = proptest::collection::vec(any::<u8>(), 0..BYTES_MAX);
    let result = TestRunner::new(config).run(&choices, |choices| {
        (property.check)(&input(&choices));
        Ok(())
    });
    if let Err(TestError::Fail(reason, choices)) = result {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-broken", property.name));
        fs::write(&path, input(&choices)).unwrap();
        panic!(
            "{} does not hold for {}: {reason}\nmove the file to {} and it is tried every time",
            property.name,
            path.display(),
            folder(property).display()
        );
    }
}

/// A text with a few places cut out, doubled, or changed for pieces of other texts.
fn mangled(texts: &[Vec<u8>], u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let mut text = u.choose(texts)?.clone();
    for _ in 0..u.int_in_range(0..=EDITS_MAX)? {
        let other = u.choose(texts)?;
        let cut = |u: &mut Unstructured<'_>, length: usize| -> arbitrary::Result<_> {
            let start = u.int_in_range(0..=length)?;
            Ok(start..u.int_in_range(start..=length.min(start + 12))?)
        };
        let (place, piece) = (cut(u, text.len())?, cut(u, other.len())?);
        text.splice(place, other[piece].iter().copied());
    }
    Ok(text)
}

/// Right texts of a property's language: those of the golden files, and the inputs that are kept. Properties whose
/// inputs are choices have none.
fn texts(property: &Property) -> Vec<Vec<u8>> {
    let queries = |golden: &str| -> Vec<_> {
        golden.split("===\n").filter_map(|block| block.split("---\n").next()).map(Vec::from).collect()
    };
    let mut texts: Vec<Vec<u8>> = match property.name {
        "eql" => queries(include_str!("../queries/eql.txt")),
        "kql" => queries(include_str!("../queries/kql.txt")),
        "event" => include_str!("events.ndjson").lines().map(Vec::from).collect(),
        "fmt" => {
            [include_str!("../queries/eql.txt"), include_str!("../queries/kql.txt")].map(queries).concat()
        }
        "rule" => Vec::new(),
        _ => return Vec::new(),
    };
    texts.extend(inputs(property).iter().map(|path| fs::read(path).unwrap()));
    texts
}

/// The inputs of a property that are kept.
fn inputs(property: &Property) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(property)).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn folder(property: &Property) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/inputs").join(property.name)
}
