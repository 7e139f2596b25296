//! The lock of the state directory: it has one agent.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Held by the agent that uses the state directory.
const LOCK: &str = "lapwing.lock";
/// Most bytes of the number in it that are read.
const HOLDER_BYTES_MAX: u64 = 32;
/// How long an agent that is just ending may still hold the lock.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// One agent a state directory: two would deliver each other's alerts.
pub(super) fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| {
            format!("cannot write {}: check `state_dir` and who may write there", path.display())
        })?;
    let deadline = Instant::now() + LOCK_WAIT;
    while file.try_lock().is_err() {
        if Instant::now() < deadline {
            std::thread::sleep(LOCK_WAIT / 20);
            continue;
        }
        let mut holder = String::new();
        // The number is a courtesy; the lock says all that counts.
        let _ = (&mut file).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
        bail!(
            "another lapwing (process {}) uses the state directory {}: stop it, or give this one a `state_dir` of \
             its own",
            holder.trim(),
            directory.display()
        );
    }
    // The number is a courtesy: a full disk is no reason not to start.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}
