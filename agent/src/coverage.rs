//! Which events there are here, for rules to be held against.

use lapwing_engine::coverage::Source;

use crate::config::Config;
use crate::pipeline::{CLOUDTRAIL_STREAMS, SENSOR_STREAMS};
use crate::sensor;
use crate::source::cloudtrail::{self, Geo};

/// The sources that this configuration switches on; without one, all that there can be.
pub(crate) fn sources(config: Option<&Config>) -> Vec<Source> {
    let mut sources = Vec::new();
    if config.is_none_or(|config| config.sensor.enabled) {
        sources.push(source("sensor", &SENSOR_STREAMS, sensor::event_kinds()));
    }
    if config.is_none_or(|config| config.cloudtrail.enabled()) {
        let places = config.is_none_or(|config| {
            let cloudtrail = &config.cloudtrail;
            let folder = std::env::temp_dir();
            Geo::open(cloudtrail.geoip.as_deref(), cloudtrail.asn.as_deref(), &folder).missing().is_none()
        });
        sources.push(source("cloudtrail", &CLOUDTRAIL_STREAMS, cloudtrail::event_kinds(places)));
    }
    sources
}

fn source(name: &str, data_streams: &[&str], kinds: Vec<lapwing_engine::coverage::EventKind>) -> Source {
    let data_streams = data_streams.iter().map(|stream| (*stream).to_owned()).collect();
    Source { name: name.to_owned(), data_streams, kinds }
}
