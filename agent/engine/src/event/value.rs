//! The value of a field, with its ECS type.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use smol_str::{SmolStr, SmolStrBuilder, ToSmolStr, format_smolstr};

use super::{Elements, SHARED_BYTES, Texts, Timestamp, Type, allocated};

/// A value of a field. A field that is absent has no value: there is no null.
#[derive(Clone, Debug)]
pub enum Value {
    /// Text, of a field of type keyword, text, version or flattened.
    Text(SmolStr),
    /// A whole number.
    Long(i64),
    /// A number with a fraction.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// An address. An IPv4 address mapped into IPv6 is held as IPv4, as Elasticsearch compares it.
    Ip(IpAddr),
    /// A point in time.
    Date(Timestamp),
    /// Several values, none of which is a list. An empty list counts as an absent field.
    List(Arc<[Self]>),
    /// A list of texts, in a compact form.
    Texts(Texts),
}

impl Value {
    /// The values one by one: a list's elements, or the value itself.
    #[must_use]
    pub fn elements(&self) -> Elements<'_> {
        match self {
            Self::List(values) => Elements::of(values),
            Self::Texts(texts) => Elements::of_texts(texts),
            value => Elements::of(std::slice::from_ref(value)),
        }
    }

    /// Whether it is an empty list.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::List(values) => values.is_empty(),
            Self::Texts(texts) => texts.as_ended().is_empty(),
            _ => false,
        }
    }

    /// A list of texts.
    pub fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Self {
        let mut values = values.into_iter();
        match Texts::new(&mut values) {
            Ok(texts) => Self::Texts(texts),
            Err((before, odd)) => {
                let before = before.iter().map(|text| Self::Text(text.into()));
                let rest = values.map(|text| Self::Text(text.as_ref().into()));
                Self::List(before.chain([Self::Text(odd.as_ref().into())]).chain(rest).collect())
            }
        }
    }

    /// A list of these values.
    #[must_use]
    pub fn list(values: Vec<Self>) -> Self {
        match values.iter().map(Self::as_text).collect::<Option<Vec<_>>>() {
            Some(texts) => Self::texts(texts),
            None => Self::List(values.into()),
        }
    }

    /// The text of a textual value, without copying it.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a textual value, or the first of a list.
    #[must_use]
    pub fn first_text(&self) -> Option<&str> {
        match self {
            Self::List(values) => values.first()?.as_text(),
            Self::Texts(texts) => texts.iter().next(),
            value => value.as_text(),
        }
    }

    /// The first value as a text; `None` for an empty list.
    #[must_use]
    pub fn first_to_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::List(values) => values.first().map(Self::to_text),
            Self::Texts(texts) => texts.iter().next().map(Cow::Borrowed),
            value => Some(value.to_text()),
        }
    }

    /// The value as text, for people and for keyword comparisons. The elements of a list are separated by commas.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Long(number) => number.to_string().into(),
            Self::Double(number) => number.to_string().into(),
            Self::Boolean(truth) => if *truth { "true" } else { "false" }.into(),
            Self::Ip(address) => address.to_string().into(),
            Self::Date(time) => time.to_string().into(),
            Self::List(values) => values.iter().map(Self::to_text).collect::<Vec<_>>().join(", ").into(),
            Self::Texts(texts) => texts.join(", ").into(),
        }
    }

    /// Reads one JSON scalar as a value of type `ty`, as an Elasticsearch mapping would. `None` if it is not one
    /// (a host name in an address field, an object), and for null.
    #[must_use]
    pub fn from_json(ty: Type, json: &serde_json::Value) -> Option<Self> {
        use serde_json::Value as Json;
        match (ty, json) {
            (ty, Json::String(text)) if ty.is_text() => Some(Self::Text(text.into())),
            (ty, Json::Number(number)) if ty.is_text() => Some(Self::Text(number.to_smolstr())),
            (ty, Json::Bool(truth)) if ty.is_text() => Some(Self::Text(truth.to_smolstr())),
            (Type::Long, Json::Number(number)) => {
                number.as_i64().or_else(|| whole(number.as_f64()?)).map(Self::Long)
            }
            (Type::Double, Json::Number(number)) => number.as_f64().map(Self::Double),
            (Type::Boolean, Json::Bool(truth)) => Some(Self::Boolean(*truth)),
            (Type::Date, Json::Number(number)) => match number.as_i64() {
                Some(millis) => Some(Self::Date(Timestamp::from_millis(millis))),
                None => {
                    number.as_f64().map(|millis| Self::Date(Timestamp::from_nanos((millis * 1e6) as i64)))
                }
            },
            (_, Json::String(text)) => Self::parse(ty, text),
            _ => None,
        }
    }

    /// Reads text as a value of type `ty`; `None` if it is not one.
    #[must_use]
    pub fn parse(ty: Type, text: &str) -> Option<Self> {
        match ty {
            Type::Keyword | Type::Text | Type::Version | Type::Flattened => Some(Self::Text(text.into())),
            Type::Long => text.parse().ok().map(Self::Long),
            Type::Double => text.parse().ok().map(Self::Double),
            Type::Boolean => text.parse().ok().map(Self::Boolean),
            Type::Ip => text.parse().ok().map(|address: IpAddr| Self::Ip(address.to_canonical())),
            Type::Date => Timestamp::parse_date(text).map(Self::Date),
            Type::Point => None,
        }
    }

    /// The value as JSON: numbers and booleans as such, other values as text.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Long(number) => (*number).into(),
            Self::Double(number) => (*number).into(),
            Self::Boolean(truth) => (*truth).into(),
            Self::List(values) => values.iter().map(Self::to_json).collect(),
            Self::Texts(texts) => texts.iter().collect(),
            value => value.to_text().into(),
        }
    }

    /// Bytes of this value on the heap, for the limits of state that keeps events.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Text(text) if text.is_heap_allocated() => allocated(SHARED_BYTES + text.len()),
            Self::List(values) => {
                let heap = values.iter().map(Self::heap_bytes).sum::<usize>();
                allocated(SHARED_BYTES + size_of_val(&**values)) + heap
            }
            Self::Texts(texts) => texts.heap_bytes(),
            _ => 0,
        }
    }

    /// The value as a text for keys. Texts are equal if and only if the values are, for values of one type.
    #[must_use]
    pub fn key(&self) -> SmolStr {
        match self {
            Self::Text(text) => text.clone(),
            Self::List(values) => {
                let parts: Vec<_> = values.iter().map(Self::key).collect();
                format_smolstr!("{parts:?}")
            }
            Self::Texts(texts) => format_smolstr!("{:?}", texts.iter().collect::<Vec<_>>()),
            // The most frequent keys after texts, without the cost of formatting.
            Self::Long(number) => itoa::Buffer::new().format(*number).into(),
            Self::Ip(IpAddr::V4(address)) => dotted(*address),
            value => value.to_text().to_smolstr(),
        }
    }
}

/// An address as four decimal numbers.
fn dotted(address: Ipv4Addr) -> SmolStr {
    let mut octet = itoa::Buffer::new();
    let mut text = SmolStrBuilder::new();
    for (place, number) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        text.push_str(octet.format(number));
    }
    text.finish()
}

/// Lists of the same values are equal, also if they have different forms.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::Long(left), Self::Long(right)) => left == right,
            (Self::Double(left), Self::Double(right)) => left == right,
            (Self::Boolean(left), Self::Boolean(right)) => left == right,
            (Self::Ip(left), Self::Ip(right)) => left == right,
            (Self::Date(left), Self::Date(right)) => left == right,
            (Self::Texts(left), Self::Texts(right)) => left == right,
            (Self::List(_) | Self::Texts(_), Self::List(_) | Self::Texts(_)) => {
                self.elements().eq(other.elements())
            }
            _ => false,
        }
    }
}

/// A number without its fraction; `None` if it is out of the range of `i64`.
fn whole(number: f64) -> Option<i64> {
    let range = i64::MIN as f64..i64::MAX as f64;
    range.contains(&number).then_some(number as i64)
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<SmolStr> for Value {
    fn from(text: SmolStr) -> Self {
        Self::Text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Long(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Long(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Long(number.into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Boolean(truth)
    }
}

impl From<Texts> for Value {
    fn from(texts: Texts) -> Self {
        Self::Texts(texts)
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Date(time)
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address.to_canonical())
    }
}

impl From<Ipv6Addr> for Value {
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::from(address).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of numbers and addresses are made by quicker means than what people see, and are the same texts.
    #[test]
    fn keys_are_what_people_see() {
        for number in [0, 7, -1, i64::MIN, i64::MAX] {
            let value = Value::Long(number);
            assert_eq!(value.key().as_str(), value.to_text());
        }
        for address in ["0.0.0.0", "1.20.103.255", "255.255.255.255", "::1", "2001:db8::7"] {
            let value = Value::parse(Type::Ip, address).unwrap();
            assert_eq!((value.key().as_str(), &*value.to_text()), (address, address));
        }
    }

    /// Whichever form a list has, it is the same list.
    #[test]
    fn lists_of_texts_are_lists() {
        let list = |texts: &[&str]| Value::List(texts.iter().map(|text| Value::from(*text)).collect());
        for texts in [&[][..], &[""], &["", ""], &["a"], &["a", "", "bc"], &["a\0b"], &["a", "\0", "c"]] {
            let (short, long) = (Value::texts(texts), list(texts));
            assert_eq!(short, long, "{texts:?}");
            assert_eq!(Value::list(short.elements().map(Cow::into_owned).collect()), long);
            assert_eq!(short.elements().is_empty(), texts.is_empty());
            assert_eq!(short.elements().only().is_some(), texts.len() == 1);
            assert_eq!((short.key(), short.to_text()), (long.key(), long.to_text()));
            assert_eq!(short.to_json(), long.to_json());
        }
        assert_ne!(Value::texts(["a", "b"]), list(&["a"]));
        assert_ne!(Value::texts(["a"]), Value::from("a"));
        let mixed = vec![Value::from("a"), Value::from(1)];
        assert_eq!(Value::list(mixed.clone()), Value::List(mixed.into()));
    }

    /// 49,000 empty arguments took 1.2 MB, a value each.
    #[test]
    fn a_text_of_a_list_takes_its_bytes_and_one() {
        let empty = Value::texts(std::iter::repeat_n("", 49_000));
        assert!(empty.heap_bytes() <= 49_100, "{}", empty.heap_bytes());
        assert_eq!(empty.elements().count(), 49_000);
    }

    #[test]
    fn json_takes_the_type_of_the_field() {
        let read = |ty, json: &str| Value::from_json(ty, &serde_json::from_str(json).unwrap());
        assert_eq!(read(Type::Keyword, "1000"), Some("1000".into()));
        assert_eq!(read(Type::Keyword, "true"), Some("true".into()));
        assert_eq!(read(Type::Long, "\"22\""), Some(22.into()));
        assert_eq!(read(Type::Long, "22.9"), Some(22.into()));
        assert_eq!(read(Type::Long, "9223372036854775808"), None);
        assert_eq!(read(Type::Long, "-1e300"), None);
        assert_eq!(read(Type::Boolean, "\"true\""), Some(true.into()));
        assert_eq!(read(Type::Ip, "\"::ffff:10.0.0.1\""), Some(Value::Ip([10, 0, 0, 1].into())));
        assert_eq!(read(Type::Ip, "\"ec2.amazonaws.com\""), None);
        assert_eq!(read(Type::Date, "1500"), Some(Timestamp::from_millis(1500).into()));
        assert_eq!(read(Type::Date, "1500.5"), Some(Timestamp::from_nanos(1_500_500_000).into()));
        assert_eq!(read(Type::Date, "\"15000\""), Some(Timestamp::from_millis(15_000).into()));
        assert_eq!(read(Type::Version, "\"1.2.3\""), Some("1.2.3".into()));
        assert_eq!(read(Type::Keyword, "{}"), None);
        assert_eq!(read(Type::Keyword, "null"), None);
    }
}
