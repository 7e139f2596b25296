//! Limits the size of an alert, so that the observed process cannot choose it: the serialised size is measured, and values
//! that are too long are cut before anything is built.
//!
//! The order in which values are cut is a table, [`rank`]: copies before originals, far before near, text that anyone can
//! write before names. Within a rank the longest values are cut first, down to a length that is the same for all. Each
//! cut is marked in the value and listed in `lapwing.alert.cut`.

use lapwing_engine::event::{Leaf, insert};
use lapwing_engine::{Schema, Value};
use serde_json::{Map, Value as Json};

/// Maximum size of an alert's document, in bytes of JSON.
pub(crate) const ALERT_BYTES_MAX: usize = 256 << 10;
/// Longest identifying value that is never cut, in bytes of JSON. No id, user name, address or hash is longer.
const NAME_BYTES_KEPT: usize = 1024;
/// Longest other value that is never cut, in bytes of JSON.
const TEXT_BYTES_KEPT: usize = 256;
/// Maximum number of cuts that are listed.
const CUTS_LISTED_MAX: usize = 64;
/// Longest name of a field in the list, in characters.
const LISTED_NAME_CHARS_MAX: usize = 100;
/// Maximum size of a mark, in bytes of JSON.
const MARK_BYTES: usize = 48;

/// The part of an alert that a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The document's root.
    Root,
    /// One of the alert's events, by index.
    Event(usize),
    /// An ancestor, by its distance: 0 is the parent.
    Ancestor(usize),
}

/// Values that are cut together; a smaller rank is cut first.
type Rank = (u8, usize);
/// The rank of identifying values: who, where or which.
const IDENTITY: Rank = (5, 0);

/// The order in which values are cut.
fn rank(part: Part, name: &str) -> Rank {
    let is_text_at_will = ["args", "command_line", "env_vars"].iter().any(|end| name.ends_with(end));
    match part {
        _ if is_identity(name) => IDENTITY,
        // The farthest ancestor is cut first.
        Part::Ancestor(distance) if is_text_at_will => (0, usize::MAX - distance),
        Part::Event(_) => (1, 0),
        Part::Root if name.ends_with("env_vars") => (2, 0),
        Part::Ancestor(distance) => (3, usize::MAX - distance),
        Part::Root => (4, 0),
    }
}

/// Whether a field identifies who, where or which: ids, names, users, addresses, hashes.
fn is_identity(name: &str) -> bool {
    const WHOLE: &[&str] = &["agent.", "cloud.", "event.", "host.", "related.", "user."];
    const PARTS: &[&str] = &["id", "name", "ip", "address", "arn", "user", "group", "hash", "pid"];
    let mut parts = name.split('.');
    name != "event.original"
        && (WHOLE.iter().any(|start| name.starts_with(start))
            || parts.any(|part| PARTS.contains(&part) || part.ends_with("_id")))
}

/// A part of an alert with its content.
pub(super) struct Piece<'a> {
    part: Part,
    leaves: Vec<(&'a str, Leaf<'a>)>,
    /// The size of each leaf, in bytes of JSON.
    bytes: Vec<usize>,
    /// The size to which each leaf is cut.
    kept: Vec<usize>,
}

impl<'a> Piece<'a> {
    /// A part with these leaves.
    pub(super) fn new(part: Part, leaves: impl Iterator<Item = Leaf<'a>>, schema: &'a Schema) -> Self {
        let name = |leaf: &Leaf<'a>| match *leaf {
            Leaf::Field(id, _) => schema.name(id),
            Leaf::Unknown(name, _) => name,
        };
        let leaves: Vec<_> = leaves.map(|leaf| (name(&leaf), leaf)).collect();
        let bytes: Vec<_> = leaves.iter().map(|(_, leaf)| bytes_of_leaf(leaf)).collect();
        Self { part, leaves, kept: bytes.clone(), bytes }
    }

    /// The kind of part.
    pub(super) fn part(&self) -> Part {
        self.part
    }

    /// The part as a document, with values cut as needed; the cuts are added to `cuts`.
    pub(super) fn build(&self, schema: &Schema, cuts: &mut Cuts) -> Map<String, Json> {
        let mut document = Map::new();
        for (((name, leaf), bytes), kept) in self.leaves.iter().zip(&self.bytes).zip(&self.kept) {
            if kept < bytes {
                cuts.add(self.part, name);
            }
            insert(&mut document, name, shortened(leaf, schema, *kept));
        }
        document
    }

    /// Maximum size, in bytes of JSON.
    fn bytes(&self) -> usize {
        let names: usize = self.leaves.iter().map(|(name, _)| bytes_of_text(name) + 4).sum();
        names + self.kept.iter().sum::<usize>() + 4
    }
}

/// Cuts values so that the pieces fit into `room` bytes of JSON. If that is not enough, drops the farthest ancestors and
/// then the first events.
pub(super) fn fit(pieces: &mut Vec<Piece<'_>>, room: usize, cuts: &mut Cuts) {
    let bytes = |pieces: &[Piece<'_>]| pieces.iter().map(Piece::bytes).sum::<usize>();
    let excess = bytes(pieces).saturating_sub(room);
    if excess == 0 {
        return;
    }
    shorten(pieces, excess);
    let mut parts: Vec<_> =
        pieces.iter().map(|piece| piece.part).filter(|part| *part != Part::Root).collect();
    parts.sort_by_key(|part| match part {
        Part::Ancestor(distance) => (0, usize::MAX - distance),
        Part::Event(index) => (1, *index),
        Part::Root => (2, 0),
    });
    for part in parts {
        if bytes(pieces) <= room {
            return;
        }
        pieces.retain(|piece| piece.part != part);
        cuts.add(part, "");
    }
}

/// Cuts values, rank by rank, until they are `excess` bytes smaller.
fn shorten(pieces: &mut [Piece<'_>], mut excess: usize) {
    let places = pieces.iter().enumerate().flat_map(|(index, piece)| {
        let ranked = move |(place, (name, _)): (usize, &(&str, _))| (rank(piece.part, name), index, place);
        piece.leaves.iter().enumerate().map(ranked)
    });
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    for group in places.chunk_by(|(left, ..), (right, ..)| left == right) {
        let floor = if group[0].0 == IDENTITY { NAME_BYTES_KEPT } else { TEXT_BYTES_KEPT };
        let bytes: Vec<_> = group.iter().map(|(_, index, place)| pieces[*index].bytes[*place]).collect();
        let level = level(&bytes, excess, floor);
        for (_, index, place) in group {
            let kept = &mut pieces[*index].kept[*place];
            excess = excess.saturating_sub(kept.saturating_sub(level));
            *kept = (*kept).min(level);
        }
        if excess == 0 {
            return;
        }
    }
}

/// The length to which values of these lengths are cut so that they shrink by `excess` together; never below `floor`.
fn level(bytes: &[usize], excess: usize, floor: usize) -> usize {
    let mut longest: Vec<usize> = bytes.iter().copied().filter(|bytes| *bytes > floor).collect();
    longest.sort_unstable_by(|left, right| right.cmp(left));
    let mut sum = 0;
    for (index, bytes) in longest.iter().enumerate() {
        sum += bytes;
        let next = longest.get(index + 1).copied().unwrap_or(floor);
        // Cutting to the next shorter length shrinks this many values.
        if sum - next * (index + 1) >= excess {
            return ((sum - excess.min(sum)) / (index + 1)).max(floor);
        }
    }
    floor
}

/// The names of the fields that were cut.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    listed: Vec<String>,
    others: usize,
}

impl Cuts {
    /// Notes that a field of a part was cut or, without a field, that the part was dropped.
    pub(super) fn add(&mut self, part: Part, name: &str) {
        let name: String = name.chars().filter(|c| !c.is_control()).take(LISTED_NAME_CHARS_MAX).collect();
        let above = match part {
            Part::Root => String::new(),
            Part::Event(index) => format!("lapwing.alert.events.{index}."),
            Part::Ancestor(distance) => format!("lapwing.alert.ancestors.{distance}."),
        };
        self.name((above + &name).trim_end_matches('.').to_owned());
    }

    /// Notes that the value with this name in the document was cut.
    pub(super) fn name(&mut self, name: String) {
        match self.listed.len() {
            ..CUTS_LISTED_MAX => self.listed.push(name),
            _ => self.others += 1,
        }
    }

    /// The value of `lapwing.alert.cut`; `None` if nothing was cut.
    pub(super) fn json(mut self) -> Option<Json> {
        if self.others > 0 {
            self.listed.push(format!("{} more", self.others));
        }
        (!self.listed.is_empty()).then(|| self.listed.into())
    }
}

fn shortened(leaf: &Leaf<'_>, schema: &Schema, room: usize) -> Json {
    match *leaf {
        Leaf::Unknown(_, json) => shrink(json, room),
        Leaf::Field(_, Value::List(values)) => shrink_list(values.iter().map(Item::Value), room),
        Leaf::Field(_, Value::Texts(texts)) => shrink_list(texts.iter().map(Item::Text), room),
        Leaf::Field(id, value) if schema.is_list(id) => Json::Array(vec![shrink_value(value, room)]),
        Leaf::Field(_, value) => shrink_value(value, room),
    }
}

/// An element of a list of either kind.
#[derive(Clone, Copy)]
enum Item<'a> {
    Text(&'a str),
    Value(&'a Value),
    Json(&'a Json),
}

impl Item<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => bytes_of_text(text),
            Self::Value(value) => bytes_of_value(value),
            Self::Json(json) => bytes_of_json(json),
        }
    }

    fn shrink(&self, room: usize) -> Json {
        match self {
            Self::Text(text) => cut_to(text, room).map_or_else(|| (*text).into(), Json::from),
            Self::Value(value) => shrink_value(value, room),
            Self::Json(json) => shrink(json, room),
        }
    }
}

fn shrink_value(value: &Value, room: usize) -> Json {
    match value {
        Value::Text(text) => cut_to(text, room).map_or_else(|| text.as_str().into(), Json::from),
        value => value.to_json(),
    }
}

/// The first elements of a list that fit, the last of them cut, and the number of the others.
fn shrink_list<'a>(items: impl Iterator<Item = Item<'a>> + Clone, room: usize) -> Json {
    if 2 + items.clone().map(|item| item.bytes() + 1).sum::<usize>() <= room {
        return items.map(|item| item.shrink(usize::MAX)).collect();
    }
    let (count, mut list, mut left) =
        (items.clone().count(), Vec::new(), room.saturating_sub(MARK_BYTES + 2));
    for item in items {
        let bytes = item.bytes() + 1;
        if bytes <= left {
            left -= bytes;
            list.push(item.shrink(usize::MAX));
            continue;
        }
        if left > 2 * MARK_BYTES {
            list.push(item.shrink(left - 1));
        }
        break;
    }
    if list.len() < count {
        list.push(mark(&format!("{} more values", count - list.len())).into());
    }
    list.into()
}

/// The same JSON in at most about `room` bytes: texts are cut; elements and members that do not fit are dropped and
/// counted.
pub(super) fn shrink(json: &Json, room: usize) -> Json {
    if bytes_of_json(json) <= room {
        return json.clone();
    }
    match json {
        Json::String(text) => cut_to(text, room).unwrap_or_default().into(),
        Json::Array(values) => shrink_list(values.iter().map(Item::Json), room),
        Json::Object(members) => shrink_object(members, room).into(),
        scalar => scalar.clone(),
    }
}

fn shrink_object(members: &Map<String, Json>, room: usize) -> Map<String, Json> {
    let (mut object, mut left, mut omitted) = (Map::new(), room.saturating_sub(MARK_BYTES + 8), 0_usize);
    // Short members first, so that one long member does not displace all others.
    let mut order: Vec<_> = members
        .iter()
        .map(|(name, json)| (bytes_of_text(name) + 2, bytes_of_json(json), name, json))
        .collect();
    order.sort_by_key(|(name, json, ..)| name + json);
    let count = order.len();
    for (index, (name_bytes, json_bytes, name, json)) in order.into_iter().enumerate() {
        let share = left / (count - index);
        if name_bytes + json_bytes <= share {
            left -= name_bytes + json_bytes;
            object.insert(name.clone(), json.clone());
        } else if share > name_bytes + 2 * MARK_BYTES {
            left -= share;
            object.insert(name.clone(), shrink(json, share - name_bytes));
        } else {
            omitted += 1;
        }
    }
    if omitted > 0 {
        object.insert("…".to_owned(), mark(&format!("{omitted} more members")).into());
    }
    object
}

/// A text cut to at most `room` bytes of JSON, with a mark of its length; `None` if it fits.
fn cut_to(text: &str, room: usize) -> Option<String> {
    if bytes_of_text(text) <= room {
        return None;
    }
    let mut used = 2 + MARK_BYTES;
    let fits = |c: &char| {
        used += bytes_of_char(*c);
        used <= room
    };
    let mut cut: String = text.chars().take_while(fits).collect();
    cut.push_str(&mark(&format!("{} bytes", text.len())));
    Some(cut)
}

/// A text cut to this many characters, with a mark if it was longer.
pub(super) fn letters(text: &str, chars_max: usize) -> String {
    let mut rest = text.chars();
    let mut short: String = rest.by_ref().take(chars_max).collect();
    if rest.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

fn mark(what: &str) -> String {
    format!("…[cut: {what}]")
}

fn bytes_of_leaf(leaf: &Leaf<'_>) -> usize {
    match leaf {
        Leaf::Field(_, value) => bytes_of_value(value) + 2,
        Leaf::Unknown(_, json) => bytes_of_json(json),
    }
}

fn bytes_of_value(value: &Value) -> usize {
    match value {
        Value::Text(text) => bytes_of_text(text),
        Value::List(values) => 2 + values.iter().map(|value| bytes_of_value(value) + 1).sum::<usize>(),
        Value::Texts(texts) => 2 + texts.iter().map(|text| bytes_of_text(text) + 1).sum::<usize>(),
        Value::Boolean(_) => 5,
        // Numbers, addresses and times; the longest is an address with its quotes.
        _ => 48,
    }
}

/// The size of a value in JSON, in bytes.
pub(super) fn bytes_of_json(json: &Json) -> usize {
    match json {
        Json::Null | Json::Bool(true) => 4,
        Json::Bool(false) => 5,
        Json::Number(number) => number.to_string().len(),
        Json::String(text) => bytes_of_text(text),
        Json::Array(values) => 2 + values.iter().map(|value| bytes_of_json(value) + 1).sum::<usize>(),
        Json::Object(members) => {
            2 + members
                .iter()
                .map(|(name, json)| bytes_of_text(name) + bytes_of_json(json) + 2)
                .sum::<usize>()
        }
    }
}

fn bytes_of_text(text: &str) -> usize {
    2 + text.bytes().map(bytes_of_byte).sum::<usize>()
}

/// The size of a byte of text in JSON; a control character takes six bytes.
fn bytes_of_byte(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        ..0x20 => 6,
        _ => 1,
    }
}

fn bytes_of_char(c: char) -> usize {
    u8::try_from(c).ok().filter(u8::is_ascii).map_or(c.len_utf8(), bytes_of_byte)
}
