//! Queries and their layout: `tests/format/*.txt` hold a query, a line `---` and what the formatter makes of it, block
//! by block, parted by lines `===`. `UPDATE_EXPECT=1` writes what is found out now.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lapwing_engine::Schema;
use lapwing_engine::lang::format::{self, Unformatted};

type Format = fn(&str, &mut Schema) -> Result<String, Unformatted>;

#[test]
fn eql_queries() {
    check("eql", format::eql);
}

#[test]
fn kql_queries() {
    check("kql", format::kql);
}

/// Whatever the queries of the other tests are: what is formatted stays as it is when it is formatted again, and
/// nothing that can be read is given up but for a comment's sake.
#[test]
fn formatting_again_changes_nothing() {
    let formats: [(&str, Format); 3] =
        [("queries/eql", format::eql), ("queries/eql_faults", format::eql), ("queries/kql", format::kql)];
    for (name, format) in formats {
        for (query, _) in blocks(&std::fs::read_to_string(file(name)).unwrap()) {
            match format(&query, &mut Schema::new()) {
                Ok(formatted) => {
                    assert_eq!(format(&formatted, &mut Schema::new()), Ok(formatted), "{query}");
                }
                Err(Unformatted::Faults(_) | Unformatted::Comment(_)) => {}
                Err(Unformatted::Changed) => panic!("the meaning changed: {query}"),
            }
        }
    }
}

fn check(name: &str, format: Format) {
    let file = file(&format!("format/{name}"));
    let text = std::fs::read_to_string(&file).unwrap();
    let mut now = String::new();
    for (query, _) in blocks(&text) {
        let formatted = match format(&query, &mut Schema::new()) {
            Ok(formatted) => {
                assert_eq!(format(&formatted, &mut Schema::new()).as_ref(), Ok(&formatted), "{query}");
                formatted
            }
            Err(Unformatted::Comment(span)) => {
                format!("stays as it is because of `{}`", &query[span.start..span.end])
            }
            Err(other) => panic!("{query}: {other:?}"),
        };
        let separator = if now.is_empty() { "" } else { "===\n" };
        write!(now, "{separator}{query}\n---\n{formatted}\n").unwrap();
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    assert!(now == text, "{} holds something else; UPDATE_EXPECT=1 writes it:\n{now}", file.display());
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{name}.txt"))
}

/// The blocks of a file: what stands above and below the line between.
fn blocks(text: &str) -> Vec<(String, String)> {
    let block = |block: &str| {
        let (query, found) = block.split_once("---\n").unwrap_or((block, ""));
        (query.trim_end_matches('\n').to_owned(), found.to_owned())
    };
    text.split("===\n").map(block).collect()
}
