//! Threads with a tokio runtime each, for everything that waits on the outside world. `async-io` has signals, the
//! service manager, the control socket and queues. `sinks` has the sinks, which read and write files (secrets,
//! certificates, dead letters), so that a disk that hangs there blocks none of the others.

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

/// How often a thread is checked for its end while the agent stops.
const END_LOOK: Duration = Duration::from_millis(10);
/// How many pings the service manager gets per watchdog interval.
const PINGS: u32 = 4;
/// How many checks in a row may find no progress in a lane: on a busy host a batch takes long.
const LOOKS_IN_VAIN_MAX: u32 = 2;
/// Shortest time between two checks.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// A runtime whose thread is not started yet. Tasks of the start are spawned on its handle.
pub(crate) struct AsyncRuntime(Runtime);

/// The running thread. It ends after [`finish`](Self::finish), once its tasks are complete.
pub(crate) struct RuntimeThread {
    thread: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl AsyncRuntime {
    /// Builds the runtime.
    ///
    /// # Errors
    /// The kernel lacks resources.
    pub(crate) fn new() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self(runtime.context("cannot start the tokio runtime")?))
    }

    /// Spawns tasks on the runtime.
    pub(crate) fn handle(&self) -> Handle {
        self.0.handle().clone()
    }

    /// Starts the thread with this name. It ends after `finish` is complete.
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
                // A sender that was dropped has ended too.
                let _ = ended.await;
                finish.await;
            });
            // File operations on a disk that hangs are not waited for.
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
    /// Waits for running work, then ends the thread. Returns whether it ended by the deadline.
    pub(crate) fn finish(self, deadline: Instant) -> bool {
        // A thread that has ended needs no message, and one that panicked has logged it.
        let _ = self.end.send(());
        join_by(self.thread, deadline).is_some()
    }
}

/// Waits for a thread's end. `None` if it has not ended by the deadline, or panicked.
pub(crate) fn join_by<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(END_LOOK);
    }
    thread.join().ok()
}

/// Catches SIGXCPU and SIGXFSZ, which the kernel sends when the process reaches its limit of processor time or file
/// size: either would end the agent. A write that is too large fails instead, and is retried as on a full disk.
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

/// Notifies the service manager that the agent is ready. If the watchdog is enabled, it is pinged from then on while
/// every lane makes progress: none may be stuck for half of the watchdog interval. A lane that waits for the disk is
/// alive.
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

/// A lane that must make progress.
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

    /// The lane's name, if it hangs.
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
