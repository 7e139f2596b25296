//! The lock of the state directory, which one agent at a time may use.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Held by the agent that uses the state directory.
const LOCK: &str = "lapwing.lock";
/// Most bytes of the process id in it that are read.
const HOLDER_BYTES_MAX: u64 = 32;
/// How long an agent that is just ending may still hold the lock.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// One agent per state directory: two would deliver each other's alerts.
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
        // The process id is only for the message; the lock decides.
        let _ = (&mut file).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
        bail!(
            "another lapwing (process {}) uses the state directory {}: stop it, or give this one a `state_dir` of \
             its own",
            holder.trim(),
            directory.display()
        );
    }
    // The process id is only for messages: a full disk must not prevent the start.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}
