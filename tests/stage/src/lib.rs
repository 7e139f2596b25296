//! A stage for the agent: two hosts in network namespaces, an agent that runs, and what it alerts.
//!
//! Tests, the demo and benchmarks act on it with real tools. Everything on it is gone when its values are dropped.
#![forbid(unsafe_code)]

mod agent;
mod at_end;
mod hosts;
pub mod pypi;
pub mod servers;
mod skip;
pub mod trail;
mod wait;

pub use agent::{Agent, Alert, Settings};
pub use at_end::AtEnd;
pub use hosts::{Host, Hosts, IMDS, IMDS_IPV6, socket};
pub use skip::skipped;
pub use wait::until;
