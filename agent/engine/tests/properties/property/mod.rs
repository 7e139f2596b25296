//! What holds for every input, whatever it is. Each property takes bytes and panics where it does not hold: tests try
//! it on a few random inputs each time, `cargo xtask fuzz` on as many as there is time for, and what either of them
//! once found is kept in `fuzz/inputs/` and tried every time.

mod differential;
mod grammar;
mod regex;
pub(crate) mod run;
mod sample;
mod sequence;
mod terms;
mod text;
mod threshold;

use arbitrary::Unstructured;

/// Something that holds for every input.
pub(crate) struct Property {
    /// What it is called on the command line and in `fuzz/inputs/`.
    pub(crate) name: &'static str,
    /// Panics where it does not hold for these bytes: a text, or choices of which an input is made.
    pub(crate) check: fn(&[u8]),
}

/// All of them.
pub(crate) const ALL: &[Property] = &[
    Property { name: "eql", check: text::eql },
    Property { name: "kql", check: text::kql },
    Property { name: "rule", check: text::rule },
    Property { name: "event", check: text::event },
    Property { name: "fmt", check: text::fmt },
    Property { name: "regex", check: |bytes| made(bytes, regex::check) },
    Property { name: "differential", check: |bytes| made(bytes, differential::check) },
    Property { name: "sequence", check: |bytes| made(bytes, sequence::check) },
    Property { name: "new_terms", check: |bytes| made(bytes, terms::check) },
    Property { name: "sample", check: |bytes| made(bytes, sample::check) },
    Property { name: "threshold", check: |bytes| made(bytes, threshold::check) },
];

/// What is made of choices: where the bytes end, every further choice is the first.
fn made(bytes: &[u8], check: fn(&mut Unstructured<'_>) -> arbitrary::Result<()>) {
    // It can only fail for types that a choice is never made of here.
    check(&mut Unstructured::new(bytes)).unwrap();
}

/// One of several, by a choice.
fn choose<'a, T>(u: &mut Unstructured<'_>, from: &'a [T]) -> arbitrary::Result<&'a T> {
    u.choose(from)
}

/// A number below `count`, by a choice.
fn below(u: &mut Unstructured<'_>, count: usize) -> arbitrary::Result<usize> {
    u.int_in_range(0..=count - 1)
}
