//! The act beside the agent: a group of processes.

use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use lapwing_stage::until;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long an act may take.
const ACT_WITHIN: Duration = Duration::from_secs(900);

/// An act that runs. What is left of its processes is killed when this is dropped.
pub(crate) struct Act {
    child: Child,
    there: PathBuf,
    status: Option<ExitStatus>,
}

impl Act {
    /// `there` is the file that says that all of its processes are there, where they stay.
    pub(crate) fn new(child: Child, there: PathBuf) -> Self {
        Self { child, there, status: None }
    }

    /// Whether it has done everything: it has ended, or all of its processes are there and stay.
    pub(crate) fn is_over(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status.is_some() || self.there.exists()
    }

    pub(crate) fn wait(&mut self) {
        until("the end of the act", ACT_WITHIN, || Ok(self.is_over().then_some(()))).unwrap();
        assert!(self.status.is_none_or(|status| status.success()), "the act: {:?}", self.status);
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).unwrap_or(0);
        // It may have ended, with all that it made.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
