//! Golden transcripts: files, commands on them, and their output.
//!
//! A file of `tests/pipeline/commands/` begins with a title. It contains files, `=== NAME` followed by their text (compressed
//! if NAME ends in `.gz` or `.zst`), and commands, `=== $ lapwing …`, with words that contain spaces in single quotation
//! marks; the last word may be `<NAME` for standard input. A command is followed by its output, with standard error after
//! `! `, and its exit code unless that is 0. `$HERE` is the folder of the files, and `$RULES` that of the project's rules.
//! `UPDATE_EXPECT=1` rewrites the output.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::CompressionLevel;

use crate::{LAPWING, project};

#[test]
fn commands_print_what_is_written_down() {
    let folder = project().join("tests/pipeline/commands");
    let entries = fs::read_dir(&folder).expect("the folder of transcripts");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        let written = fs::read_to_string(&path).expect("a transcript");
        expect_test::expect_file![&path].assert_eq(&played(&written));
    }
}

/// The transcript with the current output.
fn played(written: &str) -> String {
    let here = tempfile::tempdir().expect("a folder");
    let mut sections = written.split("\n=== ");
    let mut played = sections.next().unwrap_or_default().to_owned();
    for section in sections {
        let (title, text) = section.split_once('\n').unwrap_or((section, ""));
        played += &format!("\n=== {title}\n");
        match title.strip_prefix("$ ") {
            Some(command) => played += &run(here.path(), command),
            None => {
                write(here.path(), title, text);
                played += text;
            }
        }
    }
    played.trim_end().to_owned() + "\n"
}

fn write(here: &Path, name: &str, text: &str) {
    let path = here.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let text = named(here, text.trim_start_matches('\n'));
    let bytes = match name.rsplit('.').next() {
        Some("gz") => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(text.as_bytes()).expect("memory");
            encoder.finish().expect("memory")
        }
        Some("zst") => ruzstd::encoding::compress_to_vec(text.as_bytes(), CompressionLevel::Fastest),
        _ => text.into_bytes(),
    };
    fs::write(path, bytes).expect("a file");
}

/// The words of a command line.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    words.collect()
}

/// The output of a command, and its exit code.
fn run(here: &Path, line: &str) -> String {
    let mut words = words(line).into_iter();
    assert_eq!(words.next(), Some("lapwing"), "{line}");
    let mut command = Command::new(LAPWING);
    command.current_dir(here).stdin(Stdio::null()).env_remove("RUST_BACKTRACE").env("LC_ALL", "C");
    for word in words {
        match word.strip_prefix('<') {
            Some(name) => command.stdin(File::open(here.join(name)).expect("a file")),
            None => command.arg(named(here, word)),
        };
    }
    let output = command.output().expect("the program");
    let text = |bytes: &[u8]| unnamed(here, &String::from_utf8_lossy(bytes));
    let mut printed = text(&output.stdout);
    for line in text(&output.stderr).lines() {
        printed += format!("! {}", without_time(line)).trim_end();
        printed.push('\n');
    }
    match output.status.code() {
        Some(0) => {}
        Some(code) => printed += &format!("exit code {code}\n"),
        None => printed += "ended by a signal\n",
    }
    printed
}

fn named(here: &Path, text: &str) -> String {
    text.replace("$HERE", &here.display().to_string()).replace("$RULES", &rules())
}

fn unnamed(here: &Path, text: &str) -> String {
    text.replace(&here.display().to_string(), "$HERE").replace(&rules(), "$RULES")
}

fn rules() -> String {
    project().join("packaging/rules").display().to_string()
}

/// A line of the agent's own log without its timestamp.
fn without_time(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, rest)) if time.parse::<jiff::Timestamp>().is_ok() => rest.trim_start(),
        _ => line,
    }
}
