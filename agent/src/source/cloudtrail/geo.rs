//! Where an address is: lookups in databases of MaxMind's format that the user names.
//!
//! A database is read through a mapping of a private copy, so that it costs page cache and no heap, and so that
//! overwriting the user's file while it is in use cannot fault the agent.

use std::fs::{File, Metadata};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lapwing_engine::{FieldId, Fields, Value, field};
use maxminddb::{PathElement, Reader};
use memmap2::Mmap;

/// How often a database is checked for a change.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The databases that enrich `source.ip`.
#[derive(Default)]
pub(crate) struct Geo {
    places: Option<Database>,
    networks: Option<Database>,
}

impl Geo {
    /// Opens the databases that are configured; copies are made in `directory`. One that cannot be read is not an
    /// error: [`Self::missing`] reports it, and it is retried when it changes.
    pub(crate) fn open(geoip: Option<&Path>, asn: Option<&Path>, directory: &Path) -> Self {
        let open = |path: &Path| Database::open(path, directory);
        Self { places: geoip.map(open), networks: asn.map(open) }
    }

    /// Why rules that need `source.geo.*` cannot run, with a hint; `None` if they can.
    pub(crate) fn missing(&self) -> Option<String> {
        match &self.places {
            None => {
                Some("no GeoIP database; set `cloudtrail.geoip` to a file in MaxMind's format".to_owned())
            }
            Some(Database { reader: Some(_), .. }) => None,
            Some(database) => database.failure.clone(),
        }
    }

    /// Checks the databases at the next lookup, without waiting for the interval.
    pub(crate) fn reload(&mut self) {
        for database in self.places.iter_mut().chain(&mut self.networks) {
            database.checked = None;
        }
    }

    /// Sets the fields that the databases have for an address.
    pub(crate) fn set(&mut self, fields: &mut Fields, address: IpAddr) {
        for (database, columns) in [(&mut self.places, PLACE), (&mut self.networks, NETWORK)] {
            if let Some(database) = database {
                database.refresh();
                database.set(fields, address, columns);
            }
        }
    }

    /// Where an address is, as latitude and longitude in degrees.
    pub(crate) fn location(&self, address: IpAddr) -> Option<(f64, f64)> {
        self.places.as_ref()?.location(address)
    }
}

/// A field, and where the databases of several makers hold it, in order of preference.
struct Column {
    id: FieldId,
    paths: &'static [&'static [PathElement<'static>]],
}

macro_rules! column {
    ($name:literal, $($($step:literal).+),+) => {
        Column { id: field!($name), paths: &[$(&[$(step($step)),+]),+] }
    };
}

const fn step(name: &'static str) -> PathElement<'static> {
    match name.as_bytes() {
        b"0" => PathElement::Index(0),
        _ => PathElement::Key(name),
    }
}

/// GeoLite2, GeoIP2 and DB-IP nest; databases built from registries' lists are flat.
#[rustfmt::skip]
const PLACE: &[Column] = &[
    column!("source.geo.city_name", "city"."names"."en", "city"),
    column!("source.geo.continent_code", "continent"."code", "continent_code", "continent"),
    column!("source.geo.continent_name", "continent"."names"."en", "continent_name"),
    column!("source.geo.country_iso_code", "country"."iso_code", "country_code", "country"),
    column!("source.geo.country_name", "country"."names"."en", "country_name"),
    column!("source.geo.postal_code", "postal"."code", "postcode"),
    column!("source.geo.region_iso_code", "subdivisions"."0"."iso_code"),
    column!("source.geo.region_name", "subdivisions"."0"."names"."en", "state1"),
    column!("source.geo.timezone", "location"."time_zone", "timezone"),
];

const NETWORK: &[Column] = &[
    column!("source.as.number", "autonomous_system_number", "asn"),
    column!("source.as.organization.name", "autonomous_system_organization", "as_name", "name"),
];

/// The fields that databases can fill.
pub(super) fn fields() -> impl Iterator<Item = FieldId> {
    PLACE.iter().chain(NETWORK).map(|column| column.id)
}

struct Database {
    path: PathBuf,
    directory: PathBuf,
    reader: Option<Reader<Mmap>>,
    /// Why the file cannot be read. A database read before stays in use: an old one is better than none.
    failure: Option<String>,
    loaded: bool,
    stamp: Option<Stamp>,
    checked: Option<Instant>,
}

impl Database {
    fn open(path: &Path, directory: &Path) -> Self {
        let mut database = Self {
            path: path.to_owned(),
            directory: directory.to_owned(),
            reader: None,
            failure: None,
            loaded: false,
            stamp: None,
            checked: None,
        };
        database.refresh();
        database
    }

    /// Opens the file if it is another than the one that was opened, at most once an interval.
    fn refresh(&mut self) {
        if self.checked.is_some_and(|checked| checked.elapsed() < CHECK_INTERVAL) {
            return;
        }
        self.checked = Some(Instant::now());
        let stamp = std::fs::metadata(&self.path).ok().as_ref().map(Stamp::of);
        if self.loaded && stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        match load(&self.path, &self.directory) {
            Ok(reader) => {
                let kind = &reader.metadata().database_type;
                tracing::info!(path = %self.path.display(), kind, "GeoIP database opened");
                self.reader = Some(reader);
                self.failure = None;
                self.loaded = true;
            }
            Err(error) => {
                let failure = format!("GeoIP database {}: {error:#}", self.path.display());
                if self.failure.as_ref() != Some(&failure) {
                    tracing::warn!("{failure}");
                }
                self.failure = Some(failure);
                self.loaded = false;
            }
        }
    }

    fn set(&self, fields: &mut Fields, address: IpAddr, columns: &[Column]) {
        let Some(found) = self.reader.as_ref().and_then(|reader| reader.lookup(address).ok()) else {
            return;
        };
        for Column { id, paths } in columns {
            let number = *id == field!("source.as.number");
            let value = paths.iter().find_map(|path| match number {
                true => {
                    found.decode_path::<Number>(path).ok().flatten().map(|Number(number)| Value::Long(number))
                }
                false => found
                    .decode_path::<&str>(path)
                    .ok()
                    .flatten()
                    .filter(|text| !text.is_empty())
                    .map(Value::from),
            });
            match value {
                // A flat `country` may hold the code or the name.
                Some(Value::Text(country))
                    if *id == field!("source.geo.country_iso_code") && country.len() != 2 => {}
                // GeoLite2 gives the part behind the country; ECS wants ISO 3166-2 whole.
                Some(Value::Text(region)) if *id == field!("source.geo.region_iso_code") => {
                    let country = fields.get(field!("source.geo.country_iso_code")).and_then(Value::as_text);
                    let whole = country.map(|country| format!("{country}-{region}"));
                    fields.set_some(*id, whole);
                }
                value => {
                    fields.set_some(*id, value);
                }
            }
        }
    }

    /// The place as latitude and longitude in degrees.
    fn location(&self, address: IpAddr) -> Option<(f64, f64)> {
        let found = self.reader.as_ref()?.lookup(address).ok()?;
        let degree = |name: &'static str| {
            let nested = [PathElement::Key("location"), PathElement::Key(name)];
            found.decode_path::<f64>(&nested).ok().flatten()
        };
        Some((degree("latitude")?, degree("longitude")?))
    }
}

/// The number of an autonomous system, which some makers write as `AS64500`.
struct Number(i64);

impl<'de> serde::Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => text
                .trim_start_matches("AS")
                .parse()
                .map(Self)
                .map_err(|_| serde::de::Error::custom("no number")),
        }
    }
}

/// What identifies a state of a file.
#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

fn load(path: &Path, directory: &Path) -> Result<Reader<Mmap>> {
    let mut source = File::open(path).context("cannot be opened")?;
    let before = source.metadata()?;
    ensure!(before.is_file(), "is not a file");
    let mut copy = tempfile::tempfile_in(directory)
        .with_context(|| format!("cannot be copied to {}, which must be writable", directory.display()))?;
    std::io::copy(&mut source, &mut copy).context("cannot be copied")?;
    if Stamp::of(&source.metadata()?) != Stamp::of(&before) {
        bail!("is being written; it is read again in {} s", CHECK_INTERVAL.as_secs());
    }
    // SAFETY: the copy has no name and its only descriptor is ours, so it cannot be truncated or changed while it is
    // mapped.
    #[expect(unsafe_code, reason = "a mapping keeps a database of 70 MB out of the heap")]
    let map = unsafe { Mmap::map(&copy) }.context("cannot be mapped")?;
    Reader::from_source(map).context("is not a database in MaxMind's format; download it again")
}
