//! Which targets of tests there are, as cargo knows them.

use anyhow::{Context, Result};
use serde_json::Value as Json;

use crate::shell;

/// The targets of tests that a plain `cargo test` leaves out (`test = false`): they need root and the kernel
/// programs, and are run by `cargo xtask test`.
///
/// # Errors
/// Where cargo cannot read the manifests.
pub(crate) fn privileged() -> Result<Vec<String>> {
    let mut cargo = shell::cargo();
    cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Json = serde_json::from_str(&shell::output(&mut cargo)?).context("cargo metadata")?;
    let list = |of: &Json, key: &str| of[key].as_array().cloned().unwrap_or_default();
    let targets = list(&metadata, "packages").into_iter().flat_map(|package| list(&package, "targets"));
    let privileged = targets.filter(|target| target["kind"][0] == "test" && target["test"] == false);
    Ok(privileged.filter_map(|target| Some(target["name"].as_str()?.to_owned())).collect())
}
