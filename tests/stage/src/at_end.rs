//! Tidying up after a process that did not: what is in a `static` is never dropped, nor is anything where a process is
//! killed.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

/// A line of the shell that is run when this process ends before this is dropped.
#[derive(Debug)]
pub struct AtEnd(Child);

impl AtEnd {
    /// A shell that waits for the end of this process, which closes its standard input.
    ///
    /// # Errors
    /// The shell cannot be started.
    pub fn new(script: &str) -> Result<Self> {
        let script = format!("trap '' INT TERM HUP; read line; {script}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).context("sh")
    }
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
