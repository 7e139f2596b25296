//! What fuzzing starts from: the project's own golden files, taken apart.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Target;
use crate::shell;

/// How a file holds its inputs.
pub(super) enum Form {
    /// An input up to `---`, what becomes of it up to `===`, and so on.
    Blocks,
    /// An input a line.
    Lines,
}

/// Writes a target's inputs into a folder, a file each.
///
/// # Errors
/// Where a file cannot be read or written.
pub(super) fn write_seeds(target: &Target, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut count = 0;
    for (name, form) in target.seeds {
        let path = shell::root().join("agent/engine/tests").join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for input in form.inputs(&text) {
            let file = folder.join(count.to_string());
            fs::write(&file, input).with_context(|| file.display().to_string())?;
            count += 1;
        }
    }
    Ok(())
}

impl Form {
    fn inputs<'a>(&self, text: &'a str) -> Vec<&'a str> {
        match self {
            Self::Blocks => text
                .split("===\n")
                .filter_map(|block| block.split("---\n").next())
                .map(str::trim_end)
                .collect(),
            Self::Lines => text.lines().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_apart() {
        assert_eq!(Form::Blocks.inputs("a\nb\n---\nx\n===\nc\n---\ny\n"), ["a\nb", "c"]);
        assert_eq!(Form::Lines.inputs("{}\n[]\n"), ["{}", "[]"]);
    }
}
