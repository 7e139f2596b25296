//! The table in `docs/kernels.md`: what came of every method of every hook on every kernel. A run replaces the columns
//! of the kernels that it was on and leaves the others as they are.

use std::fs;

use anyhow::{Context, Result};

use super::rounds::{Outcome, Tests};
use crate::shell;

const FILE: &str = "docs/kernels.md";
/// Between these the file is written by the command, and by people elsewhere.
const BEGIN: &str = "<!-- written by `cargo xtask test --vm … --write` -->\n";
const END: &str = "<!-- end -->\n";
/// What a cell says of a kernel that a method was not tried on yet.
const UNKNOWN: &str = "–";
/// What it says where a method was attached, and the tests of its round have not ended.
const ATTACHED: &str = "attached";
/// What it says where they have.
const PASSED: &str = " passed";
/// The row with the build of the kernel.
const KERNEL: &str = "kernel";

/// The cell of methods whose round was not run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// That they are attached, and nothing more is known yet.
    Open,
    /// Its previous content.
    AsItWas,
}

/// Writes the outcomes on a kernel, known by its name here and by what it calls itself.
///
/// # Errors
/// The file cannot be read or written, or has no place for the table.
pub(super) fn write(name: &str, kernel: &str, outcomes: &[Outcome], rest: Rest) -> Result<()> {
    let path = shell::root().join(FILE);
    let text = fs::read_to_string(&path).context(FILE)?;
    let place = || format!("{FILE} has no line `{}` with `{}` behind it", BEGIN.trim(), END.trim());
    let (before, behind) = text.split_once(BEGIN).with_context(place)?;
    let (table, after) = behind.split_once(END).with_context(place)?;
    let mut table = Table::parse(table);
    table.set(name, kernel, outcomes, rest);
    fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table.text())).context(FILE)
}

/// Rows of cells; the first row names the kernels and the first two cells of a row hook and method.
struct Table(Vec<Vec<String>>);

impl Table {
    fn parse(text: &str) -> Self {
        let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|-");
        let cells = |line: &str| {
            let line = line.trim().trim_matches('|');
            line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        };
        Self(text.lines().filter(is_row).map(cells).collect())
    }

    fn set(&mut self, name: &str, kernel: &str, outcomes: &[Outcome], rest: Rest) {
        let old = std::mem::take(&mut self.0);
        let mut names: Vec<_> = old.first().into_iter().flatten().skip(2).cloned().collect();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        let known = |hook: &str, method: &str, column: usize| {
            let row = old.iter().find(|row| row[0] == hook && row[1] == method);
            row.and_then(|row| row.get(column + 2)).cloned().unwrap_or_else(|| UNKNOWN.to_owned())
        };
        let place = names.iter().position(|known| known == name);
        let own = |outcome: &Outcome| {
            let before = place.map(|column| known(&outcome.hook, &outcome.method, column));
            let was_run = before.filter(|cell| cell.contains(PASSED));
            let is_open = outcome.result.as_ref().is_ok_and(|tests| *tests == Tests::NONE);
            was_run.filter(|_| is_open && rest == Rest::AsItWas).unwrap_or_else(|| cell(outcome))
        };
        let row = |hook: &str, method: &str, own: String| -> Vec<String> {
            let cells = names.iter().enumerate();
            let cells =
                cells.map(|(column, of)| if of == name { own.clone() } else { known(hook, method, column) });
            [hook.to_owned(), method.to_owned()].into_iter().chain(cells).collect()
        };
        let head = ["hook", "method"].into_iter().map(str::to_owned).chain(names.iter().cloned());
        self.0.push(head.collect());
        self.0.push(row(KERNEL, "", kernel.to_owned()));
        self.0.extend(outcomes.iter().map(|outcome| row(&outcome.hook, &outcome.method, own(outcome))));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (index, row) in self.0.iter().enumerate() {
            let code = |cell: &String| {
                if index > 0 && cell.contains('/') { format!("`{cell}`") } else { cell.clone() }
            };
            // A method is a name; so is no other cell.
            let cells: Vec<_> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| if column == 1 { code(cell) } else { cell.clone() })
                .collect();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
            if index == 0 {
                text.push_str(&format!("|{}\n", "---|".repeat(row.len())));
            }
        }
        text
    }
}

fn cell(outcome: &Outcome) -> String {
    match &outcome.result {
        Ok(Tests::NONE) => ATTACHED.to_owned(),
        Ok(Tests { passed, failed: 0 }) => format!("{passed}{PASSED}"),
        Ok(Tests { passed, failed }) => format!("{passed}{PASSED}, **{failed} failed**"),
        // Of a verifier's words, the first say enough for a table.
        Err(reason) => {
            format!("no: {}", reason.replace(['|', '\n', '`'], " ").chars().take(90).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(method: &str, result: Result<Tests, String>) -> Outcome {
        Outcome { hook: "fork".to_owned(), method: method.to_owned(), result }
    }

    #[test]
    fn a_run_replaces_its_own_column() {
        let mut table = Table::parse("");
        table.set("6.1", "6.1.0 x86_64", &[outcome("tp/a", Ok(Tests { passed: 3, failed: 0 }))], Rest::Open);
        table.set(
            "host",
            "6.18 x86_64",
            &[
                outcome("tp/a", Ok(Tests { passed: 2, failed: 1 })),
                outcome("kprobe/b", Err("the kernel | refuses".to_owned())),
            ],
            Rest::Open,
        );
        let text = table.text();
        let expected = "| hook | method | 6.1 | host |\n|---|---|---|---|\n\
                        | kernel |  | 6.1.0 x86_64 | 6.18 x86_64 |\n\
                        | fork | `tp/a` | 3 passed | 2 passed, **1 failed** |\n\
                        | fork | `kprobe/b` | – | no: the kernel   refuses |\n";
        assert_eq!(text, expected);
        assert_eq!(Table::parse(&text).text(), text);
    }

    #[test]
    fn rounds_that_are_not_run_leave_their_cells_or_open_them() {
        let before = [
            outcome("tp/a", Ok(Tests { passed: 3, failed: 0 })),
            outcome("tp/b", Ok(Tests { passed: 2, failed: 1 })),
        ];
        let again = [outcome("tp/a", Ok(Tests::NONE)), outcome("tp/b", Ok(Tests { passed: 3, failed: 0 }))];
        for (rest, first) in [(Rest::AsItWas, "3 passed"), (Rest::Open, ATTACHED)] {
            let mut table = Table::parse("");
            table.set("6.1", "6.1.0 x86_64", &before, Rest::Open);
            table.set("6.1", "6.1.0 x86_64", &again, rest);
            assert_eq!([&table.0[2][2], &table.0[3][2]], [first, "3 passed"]);
        }
    }
}
