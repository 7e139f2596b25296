//! A built-in field, and the types of fields.

/// What a field holds, in the families of Elasticsearch's mapping that compare alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Text compared whole: `keyword`, `wildcard`, `constant_keyword`.
    Keyword,
    /// Text compared word by word: `text`, `match_only_text`.
    Text,
    /// Text compared whole and ordered as a version number: `version`.
    Version,
    /// Whole numbers: `long` and the shorter ones.
    Long,
    /// Numbers with a fraction: `double`, `float`, `scaled_float`.
    Double,
    /// `boolean`.
    Boolean,
    /// IPv4 and IPv6 addresses: `ip`.
    Ip,
    /// Points in time: `date`, `date_nanos`.
    Date,
    /// Objects whose leaves are keywords and are named below this field: `flattened`.
    Flattened,
    /// Places: `geo_point`. They are carried, and no rule can compare them.
    Point,
}

impl Type {
    /// The name the type has in an Elasticsearch mapping.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keyword => "keyword",
            Self::Text => "text",
            Self::Version => "version",
            Self::Long => "long",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Ip => "ip",
            Self::Date => "date",
            Self::Flattened => "flattened",
            Self::Point => "geo_point",
        }
    }

    /// Whether values of this type are text.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Keyword | Self::Text | Self::Version | Self::Flattened)
    }
}

/// A field of the built-in table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The dotted name.
    pub name: &'static str,
    /// What it holds.
    pub ty: Type,
    /// Whether ECS writes it as an array even where it holds one value.
    pub list: bool,
}
