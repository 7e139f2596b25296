//! The edges: threads with a tokio runtime each for everything that waits on the outside world. One has signals, the
//! service manager, the control socket and queues; another has the sinks, which read and write files (secrets,
//! certificates, dead letters), so that a disk that hangs there holds up none of the others.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::lane::LaneClient;

/// How often an end is looked for while the agent stops.
const END_LOOK: Duration = Duration::from_millis(10);
/// How many pings the service manager gets in its time limit.
const PINGS: u32 = 4;
/// How many looks in a row may find a lane where it was: it has a long way to go, on a host that has no time for it.
const LOOKS_IN_VAIN_MAX: u32 = 2;
/// Shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// The runtime before its thread runs: what is to be spawned at the start is spawned on its handle.
pub(crate) struct AsyncRuntime(Runtime);

/// The running thread. It ends after the lanes have ended and the sinks have had their time to finish.
pub(crate) struct RuntimeThread {
    thread: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl AsyncRuntime {
    /// Makes the runtime.
    ///
    /// # Errors
    /// The kernel has no room for it.
    pub(crate) fn new() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self(runtime.context("cannot start the tokio runtime")?))
    }

    /// Spawns tasks on the runtime.
    pub(crate) fn handle(&self) -> Handle {
        self.0.handle().clone()
    }

    /// Starts the thread of this name. `finish` is what must be complete, or has been given its time, before it ends.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(
        self,
        name: &str,
        finish: impl Future<Output = ()> + Send + 'static,
    ) -> Result<RuntimeThread> {
        let (end, ended) = oneshot::channel();
        let work = move || {
            self.0.block_on(async move {
                // An agent that is gone without a word has ended too.
                let _ = ended.await;
                finish.await;
            });
            // A file that is read or written on a disk that hangs is not waited for.
            self.0.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        Ok(RuntimeThread {
            thread: thread.with_context(|| format!("cannot start the thread `{name}`"))?,
            end,
        })
    }
}

impl RuntimeThread {
    /// Lets what is under way finish, then ends the thread. Says whether it has ended by the deadline.
    pub(crate) fn finish(self, deadline: Instant) -> bool {
        // A thread that has ended already needs no message, and one that panicked has logged it.
        let _ = self.end.send(());
        join_by(self.thread, deadline).is_some()
    }
}

/// Waits for a thread's end; `None` where it has not ended by the deadline, or panicked.
pub(crate) fn join_by<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(END_LOOK);
    }
    thread.join().ok()
}

/// Catches the signals by which the kernel says that a limit of the process is reached, of processor time or of a file's
/// size: each would end the agent. A write that is too large fails instead, and is tried again as on a full disk.
///
/// # Errors
/// The signals cannot be caught.
pub(crate) fn ignore_rlimit_signals() -> Result<()> {
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGXCPU, libc::SIGXFSZ] {
        signal_hook::flag::register(signal, seen.clone()).context("cannot catch signals")?;
    }
    Ok(())
}

/// Calls `stop` on SIGTERM and SIGINT, and `reopen` on SIGHUP.
///
/// # Errors
/// The signals cannot be caught.
pub(crate) fn on_signals(
    handle: &Handle,
    stop: impl Fn() + Send + 'static,
    reopen: impl Fn() + Send + 'static,
) -> Result<()> {
    let _runtime = handle.enter();
    let caught = |kind| signal(kind).context("cannot catch signals");
    let (mut terminate, mut interrupt, mut hangup) =
        (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?, caught(SignalKind::hangup())?);
    handle.spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    reopen();
                    continue;
                }
            }
            notify(&[NotifyState::Stopping]);
            stop();
        }
    });
    Ok(())
}

/// Notifies the service manager that the agent is ready. From then on it pings the watchdog, where one is configured,
/// while every lane makes progress within half of the time limit. A lane that waits for the disk makes progress.
pub(crate) fn notify_service_manager(handle: &Handle, lanes: Vec<LaneClient>) {
    notify(&[NotifyState::Ready]);
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    handle.spawn(async move {
        let mut lanes: Vec<_> = lanes.into_iter().map(Watched::new).collect();
        let interval = (limit / PINGS).max(LOOK_MIN);
        let hung_for = (interval * LOOKS_IN_VAIN_MAX).as_secs_f32();
        loop {
            tokio::time::sleep(interval).await;
            let hung: Vec<_> = lanes.iter_mut().filter_map(Watched::look).collect();
            match hung[..] {
                [] => notify(&[NotifyState::Watchdog]),
                [lane, ..] => tracing::error!(
                    "lane {lane} made no progress in {hung_for:.1} s; not pinging the watchdog"
                ),
            }
        }
    });
}

/// A lane that must come round.
struct Watched {
    lane: LaneClient,
    beats: u64,
    in_vain: u32,
}

impl Watched {
    fn new(lane: LaneClient) -> Self {
        let (_, beats) = lane.beats();
        Self { lane, beats, in_vain: 0 }
    }

    /// The lane's name, where it hangs.
    fn look(&mut self) -> Option<&'static str> {
        let (name, beats) = self.lane.beats();
        self.in_vain = if beats == self.beats { self.in_vain + 1 } else { 0 };
        self.beats = beats;
        (self.in_vain >= LOOKS_IN_VAIN_MAX).then_some(name)
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("sd_notify failed: {error}");
    }
}
