//! Arguments: too many, odd, or other ones a moment later.

use std::ffi::CString;

use serde_json::{Value, json};

use crate::act::{self, Strings, c};
use crate::agent::{assert_fields, field, of, ready};
use crate::alerts::{IMDS_REQUEST, REVERSE_SHELL, alerts_by, value};

/// Runs `/bin/true` with these arguments and room for them. Returns the event.
fn run(texts: &[CString]) -> Value {
    ready();
    let (path, strings) = (c("/bin/true"), Strings::new(texts));
    let (pid, status) = act::forked(|| {
        let room = libc::rlimit { rlim_cur: 64 << 20, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit is read and no more. Arguments may take a quarter of the stack.
        unsafe { libc::setrlimit(libc::RLIMIT_STACK, &raw const room) };
        act::exec(&path, &strings)
    });
    assert_eq!(status, 0, "the program ran");
    of("exec", pid)
}

/// An attacker gives a program 2 MiB of arguments, more than any record holds, so that what matters comes after them.
/// Seen: the first 48 KiB, how many there were, and that they are not whole, as fields that rules can query.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn two_mebibytes() {
    let mut texts = vec![c("true")];
    texts.extend((0..20).map(|_| c(vec![b'x'; 110_000])));
    texts.push(c("-e"));
    let event = run(&texts);
    assert_fields(
        &event,
        json!({
            "process.args_count": texts.len(),
            "lapwing.process.args_truncated": true,
            "process.Ext.command_line_truncated": true,
        }),
    );
    assert!(field(&event, "process.command_line").as_str().unwrap().len() >= 32 * 1024);
}

/// An attacker gives a program ten thousand arguments. Seen: every one of them, the last as well as the first.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn ten_thousand_words() {
    let texts: Vec<_> = (0..10_000).map(|number| c(format!("{:x}", number % 256))).collect();
    let event = run(&texts);
    let expected: Vec<_> = texts.iter().map(|text| text.to_str().unwrap()).collect();
    assert_fields(
        &event,
        json!({
            "process.args": expected,
            "process.args_count": texts.len(),
            "lapwing.process.args_truncated": null,
        }),
    );
}

/// An attacker runs a program with no arguments at all, not even its name. Seen: the program; and the empty name that
/// kernels since 5.18 put there.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn none() {
    let event = run(&[]);
    assert_fields(&event, json!({"process.name": "true"}));
    let args = field(&event, "process.args");
    assert!(*args == json!([""]) || *args == Value::Null || *args == json!(""), "{args}");
}

/// An attacker adds a line break, a terminal's escape sequence and bytes that are no text to his arguments, to break
/// what reads them. Seen: both rules alert, and each argument has kept its bounds.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn odd_ones() {
    let script = r#"PROGRAM "" "$(printf 'a\nb\033[2J\377')" ""; exit $?"#;
    for alert in alerts_by(script, "thread", &[REVERSE_SHELL, IMDS_REQUEST]) {
        let args = value(&alert, "process.args").as_array().unwrap();
        assert_eq!(args[5..], [json!(""), json!("a\nb\u{1b}[2J\u{fffd}"), json!("")]);
        assert_eq!(value(&alert, "process.args_count"), 8);
    }
}
