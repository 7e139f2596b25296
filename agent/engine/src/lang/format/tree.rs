//! Words to a layout: what belongs together, and where it may be broken.

use super::Unformatted;
use super::layout::Doc;
use super::words::{Comment, Join, Word, WordKind};

/// Whether the words are a list of constants, which fills lines, or conditions, which stand on a line each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Fill,
    Lines,
}

/// What stands between two joining words.
#[derive(Default)]
struct Operand {
    /// Comments on lines of their own before it.
    lead: Vec<String>,
    parts: Vec<Doc>,
    /// What joins it to the next one.
    join: Option<(Join, String)>,
    /// The comment at the end of its line.
    trail: Option<String>,
}

/// Operands in a row, and the comments on lines of their own after the last one.
struct Chain {
    operands: Vec<Operand>,
    rest: Vec<String>,
}

/// Reads words from the front.
pub(super) struct FormatTree {
    words: Vec<Word>,
    next: usize,
}

type Result<T> = std::result::Result<T, Unformatted>;

impl FormatTree {
    pub(super) fn new(words: Vec<Word>) -> Self {
        Self { words, next: 0 }
    }

    fn kind(&self) -> WordKind {
        self.words.get(self.next).map_or(WordKind::End, |word| word.kind)
    }

    /// The comments before the next word: the first that ends a line, and the others.
    fn comments(&mut self) -> (Option<String>, Vec<String>) {
        let comments = self.words.get_mut(self.next).map(|word| std::mem::take(&mut word.comments));
        let mut comments = comments.unwrap_or_default().into_iter().peekable();
        let trail = comments.next_if(|comment| comment.trails).map(|comment| comment.text);
        (trail, comments.map(|comment| comment.text).collect())
    }

    /// The next word, before which no comment can stand.
    fn word(&mut self) -> Result<Word> {
        let Some(word) = self.words.get(self.next).cloned() else { return Err(Unformatted::Changed) };
        self.next += 1;
        match word.comments.first() {
            Some(Comment { span, .. }) => Err(Unformatted::Comment(*span)),
            None => Ok(word),
        }
    }

    /// Words up to one of another kind, on one line.
    fn flat(&mut self, more: impl Fn(WordKind) -> bool) -> Result<Doc> {
        let mut parts = Vec::new();
        while more(self.kind()) {
            let word = self.word()?;
            if word.apart && !parts.is_empty() {
                parts.push(text(" "));
            }
            parts.push(Doc::Text(word.text));
        }
        Ok(Doc::Concat(parts))
    }

    /// A whole query: a filter, or stages; and pipes.
    pub(super) fn query(mut self) -> Result<Doc> {
        let staged =
            self.words.first().is_some_and(|word| matches!(word.text.as_str(), "sequence" | "sample"));
        let (trail, lead) = self.comments();
        let mut parts = lines(trail.into_iter().chain(lead));
        if staged {
            self.stages(&mut parts)?;
        } else {
            let filter = self.filter()?;
            parts.push(group(filter));
        }
        while self.kind() == WordKind::Pipe {
            self.line(&mut parts, false)?;
            parts.push(self.flat(|kind| !matches!(kind, WordKind::Pipe | WordKind::End))?);
        }
        let (trail, rest) = self.comments();
        parts.extend(trail.map(|comment| Doc::Comment(format!(" {comment}"))));
        rest.into_iter().for_each(|comment| parts.extend([Doc::Hard, Doc::Text(comment)]));
        Ok(Doc::Concat(parts))
    }

    /// The end of a line and the comments up to the next word; then that word, where it stands at the start of a line.
    fn line(&mut self, parts: &mut Vec<Doc>, nested: bool) -> Result<()> {
        let (trail, lead) = self.comments();
        parts.extend(trail.map(|comment| Doc::Comment(format!(" {comment}"))));
        let mut next = vec![Doc::Hard];
        for comment in lead {
            next.extend([Doc::Text(comment), Doc::Hard]);
        }
        let next = Doc::Concat(next);
        parts.push(if nested { Doc::Nest(Box::new(next)) } else { next });
        if self.kind() == WordKind::Pipe {
            parts.push(Doc::Text(self.word()?.text));
            parts.push(text(" "));
        }
        Ok(())
    }

    /// `sequence by keys`, a line for each stage, `until` one more.
    fn stages(&mut self, parts: &mut Vec<Doc>) -> Result<()> {
        let in_head = |kind| matches!(kind, WordKind::Plain | WordKind::Join(Join::Comma));
        parts.push(self.flat(in_head)?);
        loop {
            let until = self.kind() == WordKind::Until;
            if !until && self.kind() != WordKind::OpenFilter {
                return Ok(());
            }
            self.line(parts, !until)?;
            if until {
                parts.extend([Doc::Text(self.word()?.text), text(" ")]);
            }
            let open = self.word()?.text;
            let (trail, lead) = self.comments();
            let mut stage = lines(trail.into_iter().chain(lead));
            stage.push(self.bracketed(open)?);
            let stage = Doc::Concat(stage);
            parts.push(if until { stage } else { Doc::Nest(Box::new(stage)) });
            let rest = self.flat(in_head)?;
            if !matches!(&rest, Doc::Concat(words) if words.is_empty()) {
                parts.extend([text(" "), rest]);
            }
        }
    }

    /// `[category where …]`, the bracket having been read.
    fn bracketed(&mut self, open: String) -> Result<Doc> {
        let filter = self.filter()?;
        let close = self.word()?.text;
        Ok(group(vec![Doc::Text(open), Doc::Concat(filter), Doc::Line(""), Doc::Text(close)]))
    }

    /// `category where condition`, or a condition alone.
    fn filter(&mut self) -> Result<Vec<Doc>> {
        let mut ahead = self.words[self.next..].iter().map(|word| word.kind);
        let has_head = ahead.find(|kind| *kind != WordKind::Plain) == Some(WordKind::Where);
        if !has_head {
            let chain = self.chain()?;
            return Ok(vec![chain.shown(Style::Lines)]);
        }
        let head = self.flat(|kind| kind == WordKind::Plain)?;
        let word = self.word()?.text;
        let chain = self.chain()?.shown(Style::Lines);
        let condition = Doc::Nest(Box::new(Doc::Concat(vec![Doc::Line(" "), chain])));
        Ok(vec![head, text(" "), Doc::Text(word), condition])
    }

    /// Operands up to a closing bracket, a pipe or the end.
    fn chain(&mut self) -> Result<Chain> {
        let (trail, lead) = self.comments();
        let mut operands =
            vec![Operand { lead: trail.into_iter().chain(lead).collect(), ..Operand::default() }];
        loop {
            let kind = self.kind();
            let place = operands.len() - 1;
            let operand = &mut operands[place];
            match kind {
                WordKind::Close | WordKind::End | WordKind::Pipe => {
                    // The comments at the end of the query are written by the caller that formats all of it.
                    let (trail, rest) =
                        if kind == WordKind::Close { self.comments() } else { (None, Vec::new()) };
                    operands[place].trail = trail;
                    return Ok(Chain { operands, rest });
                }
                WordKind::Join(join) => {
                    let (before, mut lead) = self.comments();
                    let joining = self.word()?.text;
                    let (after, more) = self.comments();
                    let mut trails = before.into_iter().chain(after);
                    operand.trail = trails.next();
                    lead.extend(trails);
                    lead.extend(more);
                    operand.join = Some((join, joining));
                    operands.push(Operand { lead, ..Operand::default() });
                }
                _ => {
                    let apart = self.words.get(self.next).is_some_and(|word| word.apart);
                    if apart && !operand.parts.is_empty() {
                        operand.parts.push(text(" "));
                    }
                    let part = self.part(kind)?;
                    operands[place].parts.push(part);
                }
            }
        }
    }

    fn part(&mut self, kind: WordKind) -> Result<Doc> {
        let style = match kind {
            WordKind::OpenFilter => {
                let open = self.word()?.text;
                return self.bracketed(open);
            }
            WordKind::OpenList => Style::Fill,
            WordKind::Open => Style::Lines,
            _ => return Ok(Doc::Text(self.word()?.text)),
        };
        let open = self.word()?.text;
        let chain = self.chain()?.shown(style);
        let close = self.word()?.text;
        let inner = Doc::Nest(Box::new(Doc::Concat(vec![Doc::Line(""), chain])));
        Ok(group(vec![Doc::Text(open), inner, Doc::Line(""), Doc::Text(close)]))
    }
}

impl Chain {
    fn shown(self, style: Style) -> Doc {
        let mut operands = self.operands;
        let commented = operands.iter().any(|operand| operand.trail.is_some() || !operand.lead.is_empty());
        let style = if commented { Style::Lines } else { style };
        let lead = operands.first_mut().map(|first| std::mem::take(&mut first.lead)).unwrap_or_default();
        let trail = operands.last_mut().and_then(|last| last.trail.take());
        let mut parts = lines(lead);
        parts.push(joined(operands, Join::Comma, style));
        parts.extend(end_of_line(trail));
        self.rest.into_iter().for_each(|comment| parts.extend([Doc::Broken, Doc::Hard, Doc::Text(comment)]));
        Doc::Concat(parts)
    }
}

/// Operands broken at what joins them most loosely. The first one's comments before it, and the last one's behind it,
/// are the caller's.
fn joined(operands: Vec<Operand>, level: Join, style: Style) -> Doc {
    let is_alone = operands.len() == 1;
    let tighter = match level {
        _ if is_alone => None,
        Join::Comma => Some(Join::Or),
        Join::Or => Some(Join::And),
        Join::And => None,
    };
    if is_alone {
        return Doc::Concat(operands.into_iter().flat_map(|operand| operand.parts).collect());
    }
    let mut alternatives: Vec<Vec<Operand>> = vec![Vec::new()];
    for operand in operands {
        let place = alternatives.len() - 1;
        let ends = operand.join.as_ref().is_some_and(|(join, _)| *join == level);
        alternatives[place].push(operand);
        if ends {
            alternatives.push(Vec::new());
        }
    }
    let count = alternatives.len();
    let mut parts = Vec::new();
    for (index, mut alternative) in alternatives.into_iter().enumerate() {
        let lead = alternative.first_mut().map(|first| std::mem::take(&mut first.lead)).unwrap_or_default();
        let last = alternative.last_mut();
        let (join, trail) =
            last.map(|last| (last.join.take().map(|(_, word)| word), last.trail.take())).unwrap_or_default();
        parts.extend(lines(lead));
        let nested = alternative.len() > 1 && count > 1;
        let inner = joined(alternative, tighter.unwrap_or(Join::And), style);
        parts.push(if nested { group(vec![Doc::Nest(Box::new(inner))]) } else { inner });
        if index + 1 < count {
            parts.push(Doc::Text(if level == Join::Comma {
                ",".to_owned()
            } else {
                format!(" {}", join.unwrap_or_default())
            }));
            parts.extend(end_of_line(trail));
            parts.push(match style {
                Style::Fill => group(vec![Doc::Line(" ")]),
                Style::Lines => Doc::Line(" "),
            });
        }
    }
    Doc::Concat(parts)
}

fn text(text: &str) -> Doc {
    Doc::Text(text.to_owned())
}

fn group(parts: Vec<Doc>) -> Doc {
    Doc::Group(Box::new(Doc::Concat(parts)))
}

/// Comments on lines of their own.
fn lines(comments: impl IntoIterator<Item = String>) -> Vec<Doc> {
    comments.into_iter().flat_map(|comment| [Doc::Broken, Doc::Text(comment), Doc::Hard]).collect()
}

fn end_of_line(comment: Option<String>) -> Vec<Doc> {
    comment.into_iter().flat_map(|comment| [Doc::Broken, Doc::Comment(format!(" {comment}"))]).collect()
}
