//! Where a shell or the interpreter of a language takes its commands from: a file, an argument, or its standard input.
//!
//! Only the command line is parsed, as each interpreter does. The caller chose it, so it shows only what the program
//! will do with it.

use lapwing_engine::{Texts, Value};

/// The commands are in a file that an argument names.
const FILE: &str = "file";
/// The commands are an argument.
const ARGUMENT: &str = "argument";
/// The commands come from standard input.
pub(super) const STDIN: &str = "stdin";

/// How interpreters of one kind read their arguments.
struct Interpreter {
    /// What their names are, without a version.
    names: &'static [&'static str],
    /// Options of one letter by which the commands are an argument.
    inline: &'static str,
    /// Options of one letter by which the commands are in a file, whatever follows.
    file: &'static str,
    /// Options of one letter that take the rest of their argument, or else the next one.
    valued: &'static str,
    /// Options of one letter that take the rest of their argument, if there is one.
    ended: &'static str,
    /// Options of one letter by which the commands come from standard input, whatever follows.
    stdin: &'static str,
    /// Long options by which the commands are an argument.
    long_inline: &'static [&'static str],
    /// Long options that take the next argument.
    long_valued: &'static [&'static str],
}

const NONE: Interpreter = Interpreter {
    names: &[],
    inline: "",
    file: "",
    valued: "",
    ended: "",
    stdin: "",
    long_inline: &[],
    long_valued: &[],
};

#[rustfmt::skip]
const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: &["ash", "bash", "csh", "dash", "ksh", "lksh", "mksh", "oksh", "pdksh", "rbash", "rksh", "rzsh", "sh", "tcsh", "yash", "zsh"],
        inline: "c", valued: "oO", stdin: "s", long_valued: &["--rcfile", "--init-file"], ..NONE
    },
    Interpreter { names: &["fish"], inline: "c", valued: "Cdof", long_inline: &["--command"], long_valued: &["--init-command"], ..NONE },
    Interpreter { names: &["python", "pypy"], inline: "c", file: "m", valued: "WX", long_valued: &["--check-hash-based-pycs"], ..NONE },
    Interpreter { names: &["perl"], inline: "eE", valued: "I", ended: "CDFMVdimx", ..NONE },
    Interpreter { names: &["ruby", "jruby"], inline: "e", valued: "CEIr", ended: "FKTWix", ..NONE },
    Interpreter { names: &["php"], inline: "rRBE", file: "fFS", valued: "cdzt", ..NONE },
    Interpreter { names: &["lua", "luajit", "texlua"], inline: "e", valued: "l", ..NONE },
    Interpreter { names: &["node", "nodejs"], inline: "ep", valued: "rC", long_inline: &["--eval", "--print"], long_valued: &["--require", "--import"], ..NONE },
    Interpreter { names: &["tclsh", "wish", "jimsh"], ..NONE },
    Interpreter { names: &["expect"], inline: "c", file: "f", ..NONE },
    Interpreter { names: &["guile"], inline: "c", file: "s", valued: "lLCex", ..NONE },
    Interpreter { names: &["awk", "gawk", "mawk", "nawk", "original-awk"], file: "f", valued: "Fvi", ..NONE },
];
/// Programs of many names, which take the one that is meant from their first argument.
const MULTI_CALL: [&str; 2] = ["busybox", "toybox"];
/// Operands that are standard input.
const STDIN_FILES: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// Where a program that goes by these names takes its commands from: `file`, `argument` or `stdin`. `None` where it is
/// no interpreter, as far as its names say.
pub(super) fn commands_from(names: &Value, args: &Texts) -> Option<&'static str> {
    let is_multi_call =
        names.elements().any(|name| name.as_text().is_some_and(|name| MULTI_CALL.contains(&name)));
    let mut found = names.elements().find_map(|name| interpreter(name.as_text()?));
    let mut args = args.iter();
    let called = args.next();
    // As `busybox sh`, and not a link of that name.
    let is_first = |name: &str| MULTI_CALL.contains(&base(name));
    let applet = called.is_some_and(is_first).then(|| args.next()).flatten();
    if is_multi_call && let Some(applet) = applet {
        found = interpreter(applet);
    }
    found.map(|interpreter| interpreter.read(args))
}

fn interpreter(name: &str) -> Option<&'static Interpreter> {
    let bare = name.strip_prefix('-').unwrap_or(name);
    let bare = bare.trim_end_matches(|letter: char| letter.is_ascii_digit() || matches!(letter, '.' | '-'));
    INTERPRETERS.iter().find(|interpreter| interpreter.names.contains(&bare))
}

impl Interpreter {
    /// Where it takes its commands from, with these arguments after its name.
    fn read<'a>(&self, mut args: impl Iterator<Item = &'a str>) -> &'static str {
        let mut is_stdin = false;
        while let Some(arg) = args.next() {
            if let Some(long) = arg.strip_prefix("--").filter(|long| !long.is_empty()) {
                let name = long.split_once('=').map_or(arg, |(name, _)| &arg[..2 + name.len()]);
                if self.long_inline.contains(&name) {
                    return ARGUMENT;
                }
                if name == arg && self.long_valued.contains(&name) {
                    args.next();
                }
                continue;
            }
            let letters = match arg.strip_prefix(['-', '+']) {
                Some("-") => return self.operand(args.next(), is_stdin),
                // What ends the options of a shell; others read their standard input.
                Some("") if !self.stdin.is_empty() => return self.operand(args.next(), is_stdin),
                Some(letters) if !letters.is_empty() => letters,
                _ => return self.operand(Some(arg), is_stdin),
            };
            for (index, letter) in letters.char_indices() {
                if self.inline.contains(letter) {
                    return ARGUMENT;
                }
                if self.file.contains(letter) {
                    return FILE;
                }
                is_stdin |= self.stdin.contains(letter);
                let is_last = index + letter.len_utf8() == letters.len();
                if self.valued.contains(letter) {
                    if is_last {
                        args.next();
                    }
                    break;
                }
                if self.ended.contains(letter) {
                    break;
                }
            }
        }
        STDIN
    }

    fn operand(&self, operand: Option<&str>, is_stdin: bool) -> &'static str {
        match operand {
            None => STDIN,
            Some(_) if is_stdin => STDIN,
            Some(file) if STDIN_FILES.contains(&file) => STDIN,
            // The first operand of awk is its program.
            Some(_) if self.names.contains(&"awk") => ARGUMENT,
            Some(_) => FILE,
        }
    }
}

/// The last name of a path.
pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::image::args;

    #[test]
    fn every_interpreter_says_where_its_commands_come_from() {
        for (name, line, expected) in [
            ("bash", "bash", Some(STDIN)),
            ("bash", "bash -i", Some(STDIN)),
            ("bash", "-bash", Some(STDIN)),
            ("bash", "any --login", Some(STDIN)),
            ("bash", "bash --rcfile /tmp/x -i", Some(STDIN)),
            ("bash", "bash -o pipefail", Some(STDIN)),
            ("bash", "bash +o posix -li", Some(STDIN)),
            ("bash", "bash -euo pipefail /tmp/x.sh", Some(FILE)),
            ("bash", "bash --norc -c id", Some(ARGUMENT)),
            ("bash", "bash -ilc id", Some(ARGUMENT)),
            ("bash", "bash -s -- x", Some(STDIN)),
            ("bash", "bash -- /tmp/x", Some(FILE)),
            ("sh", "sh /dev/stdin", Some(STDIN)),
            ("dash", "sh - /tmp/x", Some(FILE)),
            ("dash", "sh", Some(STDIN)),
            ("zsh", "zsh -o shwordsplit", Some(STDIN)),
            ("busybox", "busybox sh", Some(STDIN)),
            ("busybox", "/bin/busybox ash -c id", Some(ARGUMENT)),
            ("busybox", "busybox nc -e sh", None),
            ("busybox", "busybox", None),
            ("python3.11", "python3", Some(STDIN)),
            ("python3.11", "python3 -", Some(STDIN)),
            ("python3.11", "python3 -W ignore -u x.py", Some(FILE)),
            ("python3.11", "python3 -Bc pass", Some(ARGUMENT)),
            ("python3.11", "python3 -m http.server", Some(FILE)),
            ("php", "php -f x.php", Some(FILE)),
            ("php", "php -S localhost:80", Some(FILE)),
            ("expect", "expect -f x", Some(FILE)),
            ("perl", "perl -MIO::Socket -e 1", Some(ARGUMENT)),
            ("perl", "perl -le 1", Some(ARGUMENT)),
            ("perl", "perl -w x.pl", Some(FILE)),
            ("perl5.36", "perl", Some(STDIN)),
            ("ruby", "ruby -rsocket -e 1", Some(ARGUMENT)),
            ("ruby", "ruby -rsocket x.rb", Some(FILE)),
            ("php8.2", "php -r 1;", Some(ARGUMENT)),
            ("php", "php -d a=b x.php", Some(FILE)),
            ("lua5.4", "lua -e 1", Some(ARGUMENT)),
            ("node", "node --eval=1", Some(ARGUMENT)),
            ("node", "node -r x y.js", Some(FILE)),
            ("gawk", "gawk BEGIN{}", Some(ARGUMENT)),
            ("tclsh8.6", "tclsh", Some(STDIN)),
            ("cat", "cat", None),
            ("nc", "nc -e /bin/sh", None),
        ] {
            let args = args(line.split(' ').map(str::as_bytes));
            assert_eq!(commands_from(&name.into(), &args), expected, "{line}");
        }
        let none = args([]);
        assert_eq!(commands_from(&"sh".into(), &none), Some(STDIN), "without arguments, not even a name");
        let renamed = args(["x".as_bytes(), b"-i"]);
        assert_eq!(commands_from(&Value::texts(["x", "bash"]), &renamed), Some(STDIN), "by any of its names");
    }
}
