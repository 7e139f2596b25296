//! Queries made by choices, which are always right: every form of the languages over a few fields, and values that the
//! events of [`document`] often hold.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value as Json, json};

use super::{below, choose};

const TEXT: &[&str] = &[
    "process.name",
    "lapwing.process.opened_name",
    "process.args",
    "process.command_line",
    "user.id",
    "event.action",
    "labels.team",
    "message",
];
const KEYWORD: &[&str] =
    &["process.name", "lapwing.process.opened_name", "process.args", "user.id", "labels.team"];
const LONG: &[&str] = &["process.pid", "process.args_count", "destination.port"];
const DOUBLE: &str = "event.risk_score";
const BOOLEAN: &str = "process.interactive";
const IP: &[&str] = &["destination.ip", "source.ip"];
const DATE: &str = "event.created";
const ENTITIES: &[&str] = &["process.entity_id", "process.parent.entity_id", "process.Ext.ancestry"];
const CATEGORIES: &[&str] = &["process", "network", "file"];
const ADDRESSES: &[&str] = &["10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1"];
const NETWORKS: &[&str] = &["10.0.0.0/8", "::1", "fd00::/8", "0.0.0.0/0", "169.254.169.254/32", "::/0"];
const DATES: &[&str] = &["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.001Z", "1970-01-01T00:00:00Z"];
/// What texts and patterns are put together of: letters of both cases, also such whose other case is no single letter.
const PIECES: &[&str] = &[
    "a",
    "b",
    "A",
    "ab",
    "",
    "bash",
    "BASH",
    "/tmp/",
    ".",
    " ",
    "-c",
    "é",
    "É",
    "İ",
    "ß",
    "ſ",
    "\u{212a}",
    "k",
    "σ",
    "ς",
    "\\",
    "\"",
    "\u{10400}",
    "_",
    "0",
    "1",
];
const WILDCARDS: &[&str] = &["*", "?", "**", "*?"];
const REGEXES: &[&str] = &[
    "a",
    ".*",
    "[a-c]+",
    "(bash|b.)",
    "@b@",
    "~(ab)",
    "(@a@&@b@)",
    ".{2}",
    "é?",
    "<0-9>",
    "/tmp/",
    "K",
    "\\.",
    "#",
];
const NUMBERS: &[i64] = &[0, 1, 2, 7, -1, 80, i64::MAX, i64::MIN + 1];
const FRACTIONS: &[&str] = &["0.0", "1.5", "-2.5", "1e3", "21.0"];

/// An EQL event query.
pub(super) fn eql(u: &mut Unstructured<'_>) -> Result<String> {
    let category = if u.ratio(1, 2)? { choose(u, CATEGORIES)? } else { "any" };
    Ok(format!("{category} where {}", condition(u, 3)?))
}

/// Several events in an order or none, related ones, and ancestry of processes.
pub(super) fn several_events(u: &mut Unstructured<'_>) -> Result<String> {
    let by = *choose(u, &["", " by user.id", " by ?user.id, process.args"])?;
    let span = *choose(u, &["", " with maxspan=2ms"])?;
    Ok(match below(u, 4)? {
        0 => format!("sequence{by}{span} [{}] [{}]", eql(u)?, eql(u)?),
        1 => format!("sequence{by} [{}] with runs=2 [{}] until [{}]", eql(u)?, eql(u)?, eql(u)?),
        2 => format!("sample by process.args [{}] [{}]", eql(u)?, eql(u)?),
        _ => {
            let relation = choose(u, &["descendant of", "child of", "event of", "not descendant of"])?;
            let word = choose(u, &["and", "or"])?;
            format!("any where {relation} [{}] {word} ({})", eql(u)?, condition(u, 1)?)
        }
    })
}

fn condition(u: &mut Unstructured<'_>, depth: usize) -> Result<String> {
    let branches = if depth == 0 { 11 } else { 15 };
    Ok(match below(u, branches)? {
        0 => format!("{} {} {}", text(u)?, choose(u, &["==", "!="])?, quoted(&literal(u)?)),
        1 => format!("{} {}{}", text(u)?, choose(u, &[":", "like ", "like~ "])?, several(u, pattern)?),
        2 => format!(
            "{} {} {}",
            text(u)?,
            choose(u, &["in", "in~", "not in", "not in~"])?,
            several(u, literal)?
        ),
        3 => {
            format!("{} {} {}", number(u, 2)?, choose(u, &["==", "!=", "<", "<=", ">", ">="])?, constant(u)?)
        }
        4 => format!("{} {} {}", text(u)?, choose(u, &["<", "<=", ">", ">="])?, quoted(&literal(u)?)),
        5 => format!("{} {} null", value(u)?, choose(u, &["==", "!="])?),
        6 => {
            let (field, address) = (choose(u, IP)?, choose(u, ADDRESSES)?);
            format!("{field} {} \"{address}\"", choose(u, &["==", "!="])?)
        }
        7 => {
            let (field, networks) = (choose(u, IP)?, [choose(u, NETWORKS)?, choose(u, NETWORKS)?]);
            format!("cidrMatch({field}, \"{}\", \"{}\")", networks[0], networks[1])
        }
        8 => choose(
            u,
            &[
                BOOLEAN,
                "true",
                "false",
                "process.interactive == false",
                "?no.such == null",
                "?no.such : \"a\"",
            ],
        )?
        .to_string(),
        9 => {
            let name = choose(
                u,
                &["startsWith", "endsWith", "stringContains", "startsWith~", "endsWith~", "stringContains~"],
            )?;
            format!("{name}({}, {})", text(u)?, if u.ratio(1, 4)? { text(u)? } else { quoted(&literal(u)?) })
        }
        10 => {
            format!("{} {}{}", text(u)?, choose(u, &["regex ", "regex~ ", "not regex "])?, several(u, regex)?)
        }
        11 => format!("not ({})", condition(u, depth - 1)?),
        12 => format!("({DATE} {} \"{}\")", choose(u, &["==", "!=", "<", ">="])?, choose(u, DATES)?),
        branch => {
            let word = if branch == 13 { " and " } else { " or " };
            let parts = (0..2 + below(u, 3)?).map(|_| condition(u, depth - 1));
            format!("({})", parts.collect::<Result<Vec<_>>>()?.join(word))
        }
    })
}

/// Something textual: a field, mostly, or a function of one.
fn text(u: &mut Unstructured<'_>) -> Result<String> {
    let field = *choose(u, TEXT)?;
    Ok(match below(u, 10)? {
        0 => format!("concat({field}, {})", value(u)?),
        1 => format!(
            "substring({field}, {}, {})",
            choose(u, &["0", "1", "-2"])?,
            choose(u, &["2", "-1", "9"])?
        ),
        2 => {
            let cased = choose(u, &["between", "between~"])?;
            format!(
                "{cased}({field}, {}, {}, {})",
                quoted(choose(u, PIECES)?),
                quoted(choose(u, PIECES)?),
                u.arbitrary::<bool>()?
            )
        }
        3 => format!("string({})", value(u)?),
        _ => field.to_owned(),
    })
}

fn number(u: &mut Unstructured<'_>, depth: usize) -> Result<String> {
    let field = *choose(u, LONG)?;
    Ok(match below(u, if depth == 0 { 6 } else { 9 })? {
        0 => format!("length({})", text(u)?),
        1 => {
            format!("indexOf{}({}, {})", choose(u, &["", "~"])?, choose(u, TEXT)?, quoted(choose(u, PIECES)?))
        }
        2 => format!("number({}, {})", choose(u, TEXT)?, choose(u, &["10", "16", "2"])?),
        3 => DOUBLE.to_owned(),
        6 => {
            format!("({} {} {})", number(u, depth - 1)?, choose(u, &["+", "-", "*", "/", "%"])?, constant(u)?)
        }
        7 => format!(
            "({} {} {})",
            number(u, depth - 1)?,
            choose(u, &["+", "-", "*", "/", "%"])?,
            number(u, depth - 1)?
        ),
        8 => {
            let name = choose(u, &["add", "subtract", "multiply", "divide", "modulo"])?;
            format!("{name}({}, {})", number(u, depth - 1)?, constant(u)?)
        }
        _ => field.to_owned(),
    })
}

fn value(u: &mut Unstructured<'_>) -> Result<String> {
    let fields = [TEXT[0], TEXT[1], LONG[0], DOUBLE, BOOLEAN, IP[0], DATE, "labels.team"];
    Ok((*choose(u, &fields)?).to_owned())
}

fn constant(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(if u.ratio(1, 4)? { (*choose(u, FRACTIONS)?).to_owned() } else { choose(u, NUMBERS)?.to_string() })
}

fn several(u: &mut Unstructured<'_>, draw: fn(&mut Unstructured<'_>) -> Result<String>) -> Result<String> {
    let entries = (0..1 + below(u, 4)?).map(|_| Ok(quoted(&draw(u)?))).collect::<Result<Vec<_>>>()?;
    Ok(format!("({})", entries.join(", ")))
}

fn literal(u: &mut Unstructured<'_>) -> Result<String> {
    let pieces = (0..1 + below(u, 3)?).map(|_| choose(u, PIECES).copied());
    Ok(pieces.collect::<Result<Vec<_>>>()?.concat())
}

fn pattern(u: &mut Unstructured<'_>) -> Result<String> {
    let piece = |u: &mut Unstructured<'_>| {
        let from = if u.ratio(1, 2)? { WILDCARDS } else { PIECES };
        choose(u, from).copied()
    };
    let pieces = (0..1 + below(u, 5)?).map(|_| piece(u));
    Ok(pieces.collect::<Result<Vec<_>>>()?.concat())
}

fn regex(u: &mut Unstructured<'_>) -> Result<String> {
    let pieces = (0..1 + below(u, 3)?).map(|_| choose(u, REGEXES).copied());
    Ok(pieces.collect::<Result<Vec<_>>>()?.concat())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A KQL query.
pub(super) fn kql(u: &mut Unstructured<'_>, depth: usize) -> Result<String> {
    Ok(match below(u, if depth == 0 { 6 } else { 9 })? {
        0 => format!("{}: {}", choose(u, TEXT)?, quoted(&literal(u)?)),
        1 => format!(
            "{}: {}",
            choose(u, KEYWORD)?,
            choose(u, &["*", "a*", "*b", "*a*b*", "bash", "a", "/tmp/*"])?
        ),
        2 => format!(
            "{} {} {}",
            choose(u, LONG)?,
            choose(u, &[":", "<", "<=", ">", ">="])?,
            choose(u, &["0", "1", "7", "80"])?
        ),
        3 => format!(
            "{}: {}",
            choose(u, IP)?,
            choose(u, &["10.0.0.1", "\"::1\"", "10.0.0.0/8", "\"fd00::1\""])?
        ),
        4 => format!("{BOOLEAN}: {}", u.arbitrary::<bool>()?),
        5 => format!("event.category: {}", choose(u, CATEGORIES)?),
        6 => format!("not ({})", kql(u, depth - 1)?),
        branch => {
            let word = if branch == 7 { " and " } else { " or " };
            let parts = (0..2 + below(u, 2)?).map(|_| kql(u, depth - 1));
            format!("({})", parts.collect::<Result<Vec<_>>>()?.join(word))
        }
    })
}

/// An event with some of the fields that the queries are about.
pub(super) fn document(u: &mut Unstructured<'_>, id: usize) -> Result<Json> {
    let mut document = Map::new();
    document.insert("@timestamp".into(), json!(id));
    document.insert("event.id".into(), id.to_string().into());
    let mut set = |u: &mut Unstructured<'_>, name: &str, draw: Draw| -> Result<()> {
        let value = match below(u, 8)? {
            0 | 1 => return Ok(()),
            2 => (0..below(u, 4)?).map(|_| draw(u)).collect::<Result<Json>>()?,
            3 => json!([null, draw(u)?]),
            _ => draw(u)?,
        };
        document.insert(name.to_owned(), value);
        Ok(())
    };
    set(u, "event.category", |u| Ok((*choose(u, CATEGORIES)?).into()))?;
    for name in TEXT {
        set(u, name, |u| Ok(literal(u)?.into()))?;
    }
    for name in LONG {
        set(u, name, |u| Ok((*choose(u, NUMBERS)?).into()))?;
    }
    for name in IP {
        set(u, name, |u| Ok((*choose(u, ADDRESSES)?).into()))?;
    }
    for name in ENTITIES {
        set(u, name, |u| Ok((*choose(u, &["p1", "p2", "p3"])?).into()))?;
    }
    set(u, DOUBLE, |u| Ok((*choose(u, &[0.0, -0.0, 1.5, -2.5, 21.0, 1e300])?).into()))?;
    set(u, BOOLEAN, |u| Ok(u.arbitrary::<bool>()?.into()))?;
    set(u, DATE, |u| Ok((*choose(u, DATES)?).into()))?;
    Ok(document.into())
}

type Draw = fn(&mut Unstructured<'_>) -> Result<Json>;
