//! Generated files, kept up to date by tests: the pages of `docs/reference/`, man pages and shell completions.
//!
//! `UPDATE_EXPECT=1 cargo test -p lapwing --bin lapwing reference` writes them.

mod fields;
mod pages;
mod source;
mod status;

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::command;

/// A path of the project.
fn project(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// Compares a generated text with a file of the project, or writes it.
fn check(path: &str, text: &str) {
    let text = format!("{}\n", text.trim_end());
    expect_test::expect_file![project(path)].assert_eq(&text);
}

#[test]
fn the_reference_pages_are_up_to_date() {
    for (name, text) in [
        ("cli", pages::cli()),
        ("configuration", pages::configuration()),
        ("control-protocol", pages::control_protocol()),
        ("diagnostics", pages::diagnostics()),
        ("events", pages::events()),
        ("fields", fields::page()),
        ("status", status::page()),
    ] {
        check(&format!("docs/reference/{name}.md"), &text);
    }
}

#[test]
fn the_man_pages_are_up_to_date() {
    let mut command = command::Args::command();
    command.build();
    write_man_page(&command, "lapwing");
}

/// Writes the man page of a command and those of its subcommands.
fn write_man_page(command: &clap::Command, name: &str) {
    let mut page = Vec::new();
    // Without the version, so that a release changes no page.
    let man =
        clap_mangen::Man::new(command.clone()).title(name.to_uppercase()).section("8").source("lapwing");
    man.render(&mut page).unwrap();
    let text = String::from_utf8(page).unwrap();
    let lines = text.lines().take_while(|line| *line != ".SH VERSION").map(str::trim_end);
    let lines: Vec<_> = lines.collect();
    check(&format!("packaging/man/{name}.8"), &lines.join("\n"));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_man_page(subcommand, &format!("{name}-{}", subcommand.get_name()));
    }
}

#[test]
fn the_shell_completions_are_up_to_date() {
    for (shell, file) in
        [(Shell::Bash, "lapwing.bash"), (Shell::Zsh, "_lapwing"), (Shell::Fish, "lapwing.fish")]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command::Args::command(), "lapwing", &mut script);
        let text = String::from_utf8(script).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        check(&format!("packaging/completions/{file}"), &lines.join("\n"));
    }
}
