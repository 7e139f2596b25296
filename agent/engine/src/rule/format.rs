//! The queries of a rule file in one layout; everything else in the file stays as it is, byte by byte.

use toml::de::DeTable;

use super::document::{DocumentTable, Placed, place_in_string};
use super::file::{parse, text};
use super::load::is_endpoint;
use crate::event::Schema;
use crate::lang::diagnostic::{Diagnostic, Span};
use crate::lang::format::{self, Unformatted};

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Formatted {
    /// The file's text with its queries in the layout.
    pub text: String,
    /// How many queries the file has that there is a layout for.
    pub queries: usize,
    /// Queries that stay as they are, with the line at which each has what keeps it so.
    pub kept: Vec<(usize, Unformatted)>,
}

type Format = fn(&str, &mut Schema) -> Result<String, Unformatted>;

/// A query in a file.
struct Query {
    /// The table that it is the query of.
    table: &'static str,
    text: Placed<String>,
    format: Format,
}

/// Formats the queries of a file of rules or jobs. The result is read again before it is given out: a query that would
/// not be the same typed query any more stays.
///
/// # Errors
/// What is wrong with the file, where it is no TOML document.
pub fn format_file(bytes: &[u8], schema: &mut Schema) -> Result<Formatted, Vec<Diagnostic>> {
    // Blanks stand for a byte order mark there, so that places in this text are places in the file too.
    let file = text(bytes);
    parse(bytes, &file)?;
    let mut queries = queries(&file);
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut formatted = Formatted { text, queries: queries.len(), kept: Vec::new() };
    // From the end, so that the places before stay what they are.
    queries.sort_by_key(|query| std::cmp::Reverse(query.text.span.start));
    for query in queries {
        if let Err(reason) = formatted.format(&file, &query, schema) {
            let span = query.text.span;
            let at = place_of(&reason).map_or(span.start, |at| place_in_string(&file, span, at));
            let line = file[..file.floor_char_boundary(at)].matches('\n').count() + 1;
            formatted.kept.push((line, reason));
        }
    }
    formatted.kept.reverse();
    Ok(formatted)
}

impl Formatted {
    /// Formats one query in the text, behind which nothing changed yet that matters to it.
    fn format(&mut self, file: &str, query: &Query, schema: &mut Schema) -> Result<(), Unformatted> {
        let laid_out = (query.format)(&query.text.value, schema)?;
        if laid_out == query.text.value.trim() {
            return Ok(());
        }
        let range = query.text.span.start..query.text.span.end;
        let mut text = self.text.clone();
        text.replace_range(range.clone(), &in_quotes(&laid_out, &file[range]));
        let again = queries(&text).into_iter().find(|other| other.table == query.table);
        let again = again.map(|again| (query.format)(&again.text.value, schema));
        if again != Some(Ok(laid_out)) {
            return Err(Unformatted::Changed);
        }
        self.text = text;
        Ok(())
    }
}

fn place_of(reason: &Unformatted) -> Option<usize> {
    match reason {
        Unformatted::Comment(span) => Some(span.start),
        Unformatted::Faults(faults) => faults.first().map(|fault| fault.span.start),
        Unformatted::Changed => None,
    }
}

/// The queries of a file. A query of a language that is none of ours is passed over.
fn queries(file: &str) -> Vec<Query> {
    let Ok(document) = DeTable::parse(file) else { return Vec::new() };
    let root = DocumentTable::new(document.get_ref(), Span::default(), "file");
    let mut ignored = Vec::new();
    let mut found = Vec::new();
    for name in ["rule", "job"] {
        let Some(table) = root.table(name, &mut ignored) else { continue };
        let mut text = |key| {
            let text = table.text(key, &mut ignored)?;
            Some(Placed { value: text.value.to_owned(), span: text.span })
        };
        let is_eql = text("type").is_some_and(|ty| ty.value == "eql") || is_endpoint(&table);
        let language = text("language").map(|language| language.value);
        let format: Format = match language.as_deref().unwrap_or(if is_eql { "eql" } else { "kuery" }) {
            "eql" => format::eql,
            "kuery" => format::kql,
            _ => continue,
        };
        found.extend(text("query").map(|text| Query { table: name, text, format }));
    }
    found
}

/// A query as a TOML string: on its line where it was and still is one line, else on lines of its own.
fn in_quotes(query: &str, before: &str) -> String {
    let one_line = !query.contains('\n') && !before.contains('\n');
    let many_lines = before.starts_with("'''") || before.starts_with("\"\"\"");
    let string = match before.as_bytes() {
        [b'\'', ..] if one_line && !many_lines && !query.contains('\'') => format!("'{query}'"),
        [b'"', ..] if one_line && !many_lines => format!("\"{}\"", escaped(query)),
        _ if !query.contains("'''") => format!("'''\n{query}\n'''"),
        _ => format!("\"\"\"\n{}\n\"\"\"", query.lines().map(escaped).collect::<Vec<_>>().join("\n")),
    };
    if before.contains("\r\n") { string.replace("\r\n", "\n").replace('\n', "\r\n") } else { string }
}

fn escaped(line: &str) -> String {
    line.replace('\\', "\\\\").replace('"', "\\\"").replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(file: &str) -> Formatted {
        format_file(file.as_bytes(), &mut Schema::new()).unwrap()
    }

    #[test]
    fn nothing_but_the_query_changes() {
        for (file, expected) in [
            (
                "# top\r\n[rule] # rule\nquery = 'process where process.pid==1'  # why\ntype=\"eql\"\n",
                "# top\r\n[rule] # rule\nquery = 'process where process.pid == 1'  # why\ntype=\"eql\"\n",
            ),
            (
                r#"rule = { type = 'query', query = "process.name:\"a\\\\b\"" }"#,
                r#"rule = { type = 'query', query = "process.name: \"a\\\\b\"" }"#,
            ),
            (
                "\u{feff}[rule]\ntype = 'eql'\nquery = '''\n  any where (true\n)\n'''\n[metadata]\nx = 1",
                "\u{feff}[rule]\ntype = 'eql'\nquery = '''\nany where (true)\n'''\n[metadata]\nx = 1",
            ),
            (
                r#"rule = { type = 'eql', query = """any where process.name=="\\"'''\u00e9" """ }"#,
                "rule = { type = 'eql', query = \"\"\"\nany where process.name == \\\"\\\\\\\"'''é\\\"\n\"\"\" }",
            ),
            (
                "[rule]\nid = 'a'\nos_list = ['linux']\nquery = 'process where child of[process where  true]'",
                "[rule]\nid = 'a'\nos_list = ['linux']\nquery = 'process where child of [process where true]'",
            ),
            (
                "[rule]\r\ntype = 'eql'\r\nquery = '''\r\nany where\r\ntrue'''\r\n",
                "[rule]\r\ntype = 'eql'\r\nquery = '''\r\nany where true\r\n'''\r\n",
            ),
            ("[job]\nquery = 'process.pid:1'", "[job]\nquery = 'process.pid: 1'"),
            (
                "rule = {type='esql', language='esql', query='from  x'}",
                "rule = {type='esql', language='esql', query='from  x'}",
            ),
        ] {
            let found = formatted(file);
            assert_eq!((found.text.as_str(), found.kept), (expected, Vec::new()));
            assert_eq!(formatted(expected).text, expected);
        }
    }

    #[test]
    fn what_cannot_be_formatted_stays() {
        let file = "[rule]\ntype = 'eql'\nquery = '''\nprocess where process.pid == // why\n 1'''\n";
        let found = formatted(file);
        assert_eq!(found.text, file);
        assert!(matches!(found.kept.as_slice(), [(4, Unformatted::Comment(_))]), "{:?}", found.kept);
        let found = formatted("[rule]\ntype = 'eql'\nquery = 'process where'\n");
        assert!(matches!(found.kept.as_slice(), [(3, Unformatted::Faults(_))]), "{:?}", found.kept);
        assert!(format_file(b"[rule", &mut Schema::new()).is_err());
    }
}
