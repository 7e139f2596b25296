//! The engine's properties under libFuzzer: one program for all of them; an environment variable selects which to try.
#![no_main]
#![expect(clippy::unwrap_used, reason = "a fuzzer that cannot go on stops")]

#[path = "../../tests/properties/property/mod.rs"]
mod property;

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use libfuzzer_sys::fuzz_target;

/// The environment variable that names the property.
const PROPERTY: &str = "LAPWING_PROPERTY";

static CHECK: OnceLock<fn(&[u8])> = OnceLock::new();

/// Prints at the end for how many events two engines agreed, where they were compared.
struct Tally;

impl Drop for Tally {
    fn drop(&mut self) {
        eprintln!("events: {}", property::run::AGREED.load(Ordering::Relaxed));
    }
}

thread_local! {
    /// libFuzzer ends the program from within: what it still runs are the destructors of its thread.
    static TALLY: Tally = const { Tally };
}

fuzz_target!(
    init: {
        TALLY.with(|_| ());
        let name = std::env::var(PROPERTY).unwrap_or_default();
        let property = property::ALL.iter().find(|property| property.name == name);
        let Some(property) = property else { panic!("{PROPERTY}: there is no property {name:?}") };
        CHECK.get_or_init(|| property.check);
    },
    |bytes: &[u8]| {
        if let Some(check) = CHECK.get() {
            check(bytes);
        }
    }
);
