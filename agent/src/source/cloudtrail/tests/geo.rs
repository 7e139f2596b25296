//! Databases of places, made here: what makers write, and files that are absent, broken, replaced, overwritten.

use std::fs;
use std::net::IpAddr;

use lapwing_engine::{Fields, Schema, field};
use serde_json::json;

use super::super::geo::Geo;
use super::support::{write_cities, write_mmdb, write_networks};

fn country(geo: &mut Geo, address: &str) -> Option<String> {
    let mut fields = Fields::new();
    geo.set(&mut fields, address.parse().unwrap());
    fields.get(field!("source.geo.country_iso_code")).map(|value| value.to_text().into_owned())
}

#[test]
fn every_maker_s_form_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flat.mmdb");
    for (record, expected) in [
        (json!({"country_code": "DE"}), json!({"country_iso_code": "DE"})),
        (
            json!({"country_code": "DE", "country": "Germany", "continent": "EU", "city": "Berlin", "timezone": "Europe/Berlin"}),
            json!({"country_iso_code": "DE", "city_name": "Berlin", "continent_code": "EU", "timezone": "Europe/Berlin"}),
        ),
        (
            json!({"country": {"iso_code": "DE", "names": {"en": "Germany"}}}),
            json!({"country_iso_code": "DE", "country_name": "Germany"}),
        ),
        (json!({"city": {"names": {"de": "Berlin"}}}), json!(null)),
        (json!({"country": 7}), json!(null)),
        (json!({"country": "DE"}), json!({"country_iso_code": "DE"})),
        (json!({"country": "Germany"}), json!(null)),
    ] {
        write_mmdb(&path, "test", &[("203.0.113.0/24", record.clone())]);
        let mut fields = Fields::new();
        Geo::open(Some(&path), None, folder.path()).set(&mut fields, [203, 0, 113, 1].into());
        assert_eq!(fields.to_json(&Schema::new())["source"]["geo"], expected, "{record}");
    }
    let path = folder.path().join("asn.mmdb");
    for record in [
        json!({"autonomous_system_number": 64_500, "autonomous_system_organization": "Example"}),
        json!({"asn": "AS64500", "name": "Example", "domain": "example.org"}),
    ] {
        write_mmdb(&path, "test", &[("2001:db8::/32", record.clone())]);
        let mut fields = Fields::new();
        Geo::open(None, Some(&path), folder.path()).set(&mut fields, "2001:db8::1".parse().unwrap());
        let expected = json!({"number": 64_500, "organization": {"name": "Example"}});
        assert_eq!(fields.to_json(&Schema::new())["source"]["as"], expected, "{record}");
    }
}

#[test]
fn addresses_in_either_form_are_located() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("city.mmdb");
    write_cities(&path);
    let mut geo = Geo::open(Some(&path), None, folder.path());
    for (address, expected) in [
        ("203.0.113.1", Some("DE")),
        ("2001:db8::1", Some("DE")),
        ("198.51.100.1", Some("PE")),
        ("10.0.0.1", None),
        ("::1", None),
    ] {
        assert_eq!(country(&mut geo, address).as_deref(), expected, "{address}");
    }
    let address: IpAddr = [203, 0, 113, 1].into();
    assert_eq!(geo.location(address), Some((52.52, 13.405)));
}

#[test]
fn a_missing_database_is_reported_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let (absent, broken) = (folder.path().join("absent.mmdb"), folder.path().join("broken.mmdb"));
    fs::write(&broken, "this is not a database").unwrap();
    let missing = |path| Geo::open(path, None, folder.path()).missing().unwrap_or_default();
    assert_eq!(missing(None), "no GeoIP database; set `cloudtrail.geoip` to a file in MaxMind's format");
    assert!(
        missing(Some(&absent))
            .ends_with("absent.mmdb: cannot be opened: No such file or directory (os error 2)")
    );
    let message = missing(Some(&broken));
    assert!(
        message.contains("broken.mmdb: is not a database in MaxMind's format; download it again"),
        "{message}"
    );
    assert!(missing(Some(folder.path())).ends_with(": is not a file"));
}

#[test]
fn a_changed_database_is_reloaded_and_the_old_one_serves_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("city.mmdb");
    let mut geo = Geo::open(Some(&path), None, folder.path());
    assert!(geo.missing().is_some());
    write_networks(&path);
    geo.reload();
    assert_eq!(country(&mut geo, "203.0.113.1"), None);
    assert_eq!(geo.missing(), None);
    // Overwritten in place with something shorter: the mapping must not fault.
    write_cities(&path);
    geo.reload();
    assert_eq!(country(&mut geo, "203.0.113.1").as_deref(), Some("DE"));
    fs::write(&path, "").unwrap();
    assert_eq!(country(&mut geo, "203.0.113.1").as_deref(), Some("DE"), "not looked at yet");
    geo.reload();
    assert_eq!(country(&mut geo, "203.0.113.1").as_deref(), Some("DE"), "broken, so the old one serves");
    assert_eq!(geo.missing(), None);
}
