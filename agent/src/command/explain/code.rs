//! Explanations of diagnostic codes.

use anyhow::Result;
use lapwing_engine::lang::Code;
use lapwing_engine::lang::diagnostic::code::ALL;
use lapwing_engine::lang::example::{Written, example};
use serde_json::json;

use super::super::{print, print_json};
use crate::terminal::Screen;

/// Lists every code with its title.
pub(super) fn list(json: bool) -> Result<()> {
    ALL.iter().try_for_each(|code| match json {
        true => print_json(&to_json(code).to_string()),
        false => print(&format!("{}  {}", code.id, code.title)),
    })
}

/// Prints the explanation of a code, an example that raises it and the fix.
pub(super) fn explain(code: &Code, json: bool) -> Result<()> {
    if json {
        return print_json(&to_json(code).to_string());
    }
    print(&format!("{}: {}\n", code.id, code.title))?;
    print(&Screen::stdout().wrap(code.explanation, 0))?;
    let Some(example) = example(code) else { return Ok(()) };
    let (wrong, right) = match example.written {
        Written::Words => ("Raised by", "Fix"),
        Written::Eql | Written::Kql => ("This query raises it", "This query does not"),
        Written::Rule => ("This part of a rule raises it", "This does not"),
        Written::File => ("This file raises it", "This file does not"),
    };
    for (title, text) in [(wrong, example.wrong), (right, example.right)] {
        print(&format!("\n{title}:\n"))?;
        text.lines().try_for_each(|line| print(format!("    {line}").trim_end()))?;
    }
    Ok(())
}

fn to_json(code: &Code) -> serde_json::Value {
    let example = example(code);
    json!({
        "code": code.id,
        "title": code.title,
        "explanation": code.explanation,
        "example": example.map(|example| example.wrong),
        "cure": example.map(|example| example.right),
    })
}
