//! What tests need around the source: places for documentation's addresses, directories, records.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde_json::{Value as Json, json};

/// Writes a database in MaxMind's format that holds these records.
pub(super) fn write_mmdb(path: &Path, kind: &str, rows: &[(&str, Json)]) {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V6;
    database.metadata.database_type = kind.to_owned();
    database.metadata.binary_format_major_version = 2;
    for (network, record) in rows {
        let network: IpAddrWithMask = network.parse().unwrap();
        // An IPv4 network lies below `::/96` in such a database.
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
