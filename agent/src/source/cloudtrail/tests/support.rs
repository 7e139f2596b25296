//! What tests need around the source: places for documentation's addresses, directories, records.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use lapwing_engine::{Schema, Timestamp, field};
use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::super::CloudTrail;
use super::super::config::Config;
use super::super::status::CloudTrailReport;
use crate::source::{Batch, Source};
use crate::store::Change;

/// Writes a database in MaxMind's format that holds these records.
pub(super) fn write_mmdb(path: &Path, kind: &str, rows: &[(&str, Json)]) {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V6;
    database.metadata.database_type = kind.to_owned();
    database.metadata.binary_format_major_version = 2;
    for (network, record) in rows {
        let network: IpAddrWithMask = network.parse().unwrap();
        // An IPv4 network is below `::/96` in such a database.
        let network = match network.addr {
            IpAddr::V4(address) => {
                IpAddrWithMask::new(address.to_ipv6_compatible().into(), network.mask + 96)
            }
            IpAddr::V6(_) => network,
        };
        let record = database.insert_value(record).unwrap();
        database.insert_node(network, record);
    }
    database.write_to(File::create(path).unwrap()).unwrap();
}

/// A database like GeoLite2-City of the networks that documentation uses.
pub(super) fn write_cities(path: &Path) {
    let berlin = json!({
        "city": {"geoname_id": 2_950_159, "names": {"en": "Berlin", "de": "Berlin"}},
        "continent": {"code": "EU", "names": {"en": "Europe"}},
        "country": {"iso_code": "DE", "names": {"en": "Germany", "de": "Deutschland"}},
        "location": {"accuracy_radius": 10, "latitude": 52.52, "longitude": 13.405, "time_zone": "Europe/Berlin"},
        "postal": {"code": "10178"},
        "subdivisions": [{"iso_code": "BE", "names": {"en": "State of Berlin"}}]
    });
    let peru = json!({"continent": {"code": "SA", "names": {"en": "South America"}},
        "country": {"iso_code": "PE", "names": {"en": "Peru"}}});
    write_mmdb(
        path,
        "GeoLite2-City",
        &[("203.0.113.0/25", berlin.clone()), ("2001:db8::/32", berlin), ("198.51.100.0/24", peru)],
    );
}

/// A database like GeoLite2-ASN of the same networks.
pub(super) fn write_networks(path: &Path) {
    let record =
        json!({"autonomous_system_number": 64_500, "autonomous_system_organization": "Example Networks"});
    write_mmdb(path, "GeoLite2-ASN", &[("203.0.113.0/24", record)]);
}

/// A record of this number, an hour's every second; it has an id unless it must not be distinguishable.
pub(super) fn record(number: usize, with_id: bool) -> Json {
    let time = format!("2026-11-21T10:{:02}:{:02}Z", number / 60 % 60, number % 60);
    let mut record = json!({"eventVersion": "1.11", "eventTime": time, "eventName": format!("Call{number}"),
        "eventSource": "ec2.amazonaws.com", "awsRegion": "eu-central-1", "sourceIPAddress": "203.0.113.9",
        "requestParameters": {"number": number}, "eventType": "AwsApiCall"});
    if with_id {
        record["eventID"] = format!("{number:08x}-0000-4000-8000-000000000000").into();
    }
    record
}

/// A trail's file of the records of these numbers.
pub(super) fn file(numbers: std::ops::Range<usize>) -> Vec<u8> {
    json!({"Records": numbers.map(|number| record(number, true)).collect::<Vec<_>>()})
        .to_string()
        .into_bytes()
}

/// One record a line.
pub(super) fn lines(numbers: std::ops::Range<usize>, with_id: bool) -> Vec<u8> {
    numbers.map(|number| format!("{}\n", record(number, with_id))).collect::<String>().into_bytes()
}

/// The bytes compressed.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// How long a test waits for what must come. It is reached only when a test fails.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// The source with a store around it, as the lane and the ledger would drive it.
pub(super) struct Bench {
    config: Config,
    directory: TempDir,
    runtime: Handle,
    /// The store's rows by scope and key.
    pub(super) store: BTreeMap<(String, String), Vec<u8>>,
    pub(super) source: Option<CloudTrail>,
    /// The calls of all events that were handed over and whose checkpoint is in the store.
    pub(super) calls: Vec<String>,
    /// Whether checkpoints reach the store at once, or wait in `held`.
    pub(super) hold: bool,
    pub(super) held: Vec<Batch>,
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut bench = Self {
            config,
            directory,
            runtime: runtime(),
            store: BTreeMap::new(),
            source: None,
            calls: Vec::new(),
            hold: false,
            held: Vec::new(),
        };
        bench.restart();
        bench
    }

    /// Kills the source at any point, and reopens it with the store's rows.
    pub(super) fn restart(&mut self) {
        self.source = None;
        self.held.clear();
        let store = &self.store;
        let rows = |scope: &str| {
            let rows = store.iter().filter(|((of, _), _)| of == scope);
            Ok(rows.map(|((_, key), value)| (key.clone(), value.clone())).collect())
        };
        let schema = Arc::new(Schema::new());
        self.source =
            Some(CloudTrail::open(&self.config, schema, rows, self.directory.path(), &self.runtime).unwrap());
    }

    pub(super) fn source(&mut self) -> &mut CloudTrail {
        self.source.as_mut().unwrap()
    }

    pub(super) fn report(&mut self) -> CloudTrailReport {
        self.source().status.report(Timestamp::parse("2026-11-21T11:00:00Z").unwrap())
    }

    /// Stops the source as the agent does, and waits until its queues gave back what they hold.
    pub(super) fn stop(&mut self) {
        self.source().control().stop();
        let ended = self.source().queues_ended();
        while let Some(batch) = self.source().next(Duration::from_millis(50)).unwrap() {
            self.held.push(batch);
        }
        self.commit();
        self.source = None;
        self.runtime.block_on(ended);
    }

    /// Takes the next batch. Its checkpoint is stored unless it is held. Returns the number of events.
    pub(super) fn step(&mut self) -> usize {
        let batch = self.source().next(Duration::from_millis(50)).unwrap().expect("the source has not ended");
        let length = batch.events.len();
        self.held.push(batch);
        if !self.hold {
            self.commit();
        }
        length
    }

    /// Does what the ledger does: writes all held checkpoints, then calls what waits for that.
    pub(super) fn commit(&mut self) {
        for batch in std::mem::take(&mut self.held) {
            let actions =
                batch.events.iter().map(|event| event.text(field!("event.action")).unwrap_or_default());
            self.calls.extend(actions.map(str::to_owned));
            for Change { scope, key, value } in batch.checkpoint.changes {
                match value {
                    Some(value) => self.store.insert((scope, key), value),
                    None => self.store.remove(&(scope, key)),
                };
            }
            if let Some(done) = batch.checkpoint.done {
                done();
            }
        }
    }

    /// Steps until a condition holds.
    pub(super) fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(
                Instant::now() < deadline,
                "{what} did not come: {:?} {:?}",
                self.calls.len(),
                self.report()
            );
            self.step();
        }
    }

    /// Steps until these calls came, each once, and nothing else; in any order.
    pub(super) fn expect(&mut self, numbers: impl Iterator<Item = usize>) {
        let mut expected: Vec<_> = numbers.map(|number| format!("Call{number}")).collect();
        self.until("an event", |bench| bench.calls.len() >= expected.len());
        self.settle();
        let mut surplus = self.calls.clone();
        expected.retain(|call| match surplus.iter().position(|found| found == call) {
            Some(index) => {
                surplus.swap_remove(index);
                false
            }
            None => true,
        });
        assert_eq!((surplus, expected), (Vec::new(), Vec::new()), "too many and too few");
    }

    /// Steps until the source has read everything and has no more events.
    pub(super) fn settle(&mut self) {
        let mut idle = 0;
        while idle < 3 {
            idle = if self.step() == 0 { idle + 1 } else { 0 };
        }
    }

    /// The rows of the files that are remembered, as JSON.
    pub(super) fn file_rows(&self) -> Vec<Json> {
        let rows = self.store.iter().filter(|((scope, _), _)| scope == "cloudtrail/folder");
        let rows = rows.map(|(_, value)| serde_json::from_slice::<Json>(value).unwrap());
        rows.filter(|row| row.get("path").is_some()).collect()
    }
}

/// A runtime that runs on a thread of its own, as the agent's do.
pub(super) fn runtime() -> Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let handle = runtime.handle().clone();
            std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
            handle
        })
        .clone()
}
