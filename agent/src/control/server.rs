//! The agent's side of the control socket.

use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lapwing_engine::Schema;
use lapwing_engine::detect::Matcher;
use lapwing_engine::lang::kql;
use nix::sys::stat::{Mode, umask};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::Request;
use crate::budget::Meter;
use crate::lane::{LaneClient, Subscriber, WaitingEvent};
use crate::{recording, streams};

/// Mode of a folder that is created for the socket.
const FOLDER_MODE: u32 = 0o750;
/// Longest request that is read, in bytes.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// Maximum number of clients at once, and of those that receive events: a status request always finds a free slot.
const CLIENTS_MAX: usize = 32;
const SUBSCRIBERS_MAX: usize = 24;
/// How long a client may take to send its request.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// How long all lanes together may take to report their status.
const STATUS_WAIT: Duration = Duration::from_millis(750);
/// How long a client may take to read a finite response.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Maximum bytes of events that wait for one client, and for all; further events are dropped for that client.
const CLIENT_BYTES_MAX: usize = 4 << 20;
const CLIENTS_BYTES_MAX: usize = 6 << 20;
/// Maximum number of events that are taken at once, and bytes after which they are written.
const EVENTS_AT_ONCE_MAX: usize = 128;
const WRITE_BYTES: usize = 256 << 10;

/// Serves clients.
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    lanes: Vec<LaneClient>,
    schema: Arc<Schema>,
    status: Box<dyn Fn() -> Json + Send + Sync>,
    clients: Arc<Semaphore>,
    subscribers: Semaphore,
    waiting: Arc<Meter>,
}

impl Server {
    /// Binds the socket. One that a killed agent left is replaced.
    ///
    /// # Errors
    /// Another agent listens there, or the socket cannot be created.
    pub(crate) fn bind(
        path: &Path,
        lanes: Vec<LaneClient>,
        schema: Arc<Schema>,
        status: impl Fn() -> Json + Send + Sync + 'static,
    ) -> Result<Self> {
        free(path)?;
        let listener = listen(path).with_context(|| {
            format!("cannot listen on {}: check `control.socket` and who may write there", path.display())
        })?;
        let shared = Arc::new(Shared {
            lanes,
            schema,
            status: Box::new(status),
            clients: Arc::new(Semaphore::new(CLIENTS_MAX)),
            subscribers: Semaphore::new(SUBSCRIBERS_MAX),
            waiting: Meter::new("subscribers", CLIENTS_BYTES_MAX),
        });
        Ok(Self { listener, path: path.to_owned(), shared })
    }

    /// Serves clients until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let shared = self.shared.clone();
                    // The connection of a client beyond the maximum is closed.
                    let Ok(place) = shared.clients.clone().try_acquire_owned() else { continue };
                    tokio::spawn(async move {
                        // A client that disconnects early is no error.
                        let _ = shared.serve(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if is_socket(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that a killed agent left, and nothing else.
///
/// # Errors
/// Another agent listens there, or the path is not a socket.
fn free(path: &Path) -> Result<()> {
    check(path)?;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another agent listens on {}; stop it, or set control.socket", path.display());
    }
    if is_socket(path) {
        // If it cannot be removed, the bind fails.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Checks that the agent may use this path for its socket.
///
/// # Errors
/// The path exists and is not a socket; it is left unchanged.
pub(crate) fn check(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => bail!(
            "control.socket is {}, which exists and is not a socket; remove it, or set control.socket to another path",
            path.display()
        ),
        _ => Ok(()),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
}

/// Binds the socket so that other users can never connect.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    }
    // The umask is process-wide: files that other threads create at this moment are only more restricted.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

impl Shared {
    async fn serve(&self, stream: UnixStream) -> Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(reader.take(REQUEST_BYTES_MAX));
        tokio::time::timeout(REQUEST_WAIT, reader.read_line(&mut line)).await??;
        // A client that needs no more events shuts down its side, and receives the events on their way.
        let enough = async move {
            let mut nothing = Vec::new();
            let _ = reader.read_to_end(&mut nothing).await;
        };
        let request = serde_json::from_str(&line);
        let place = self.subscribers.try_acquire();
        let answer = match request {
            Ok(Request::Status) => {
                drop(place);
                self.status().await
            }
            Ok(Request::Events { .. } | Request::Record) if place.is_err() => {
                json!({"error": format!("{SUBSCRIBERS_MAX} clients already receive events; end one of them")})
            }
            Ok(Request::Events { query }) => match self.filter(query.as_deref()) {
                Ok(filter) => return self.events(&mut writer, filter, enough).await,
                Err(error) => json!({"error": format!("{error:#}")}),
            },
            Ok(Request::Record) => match self.lanes.iter().find(|lane| lane.name() == streams::SENSOR.lane) {
                Some(lane) => return self.record(&mut writer, lane, enough).await,
                None => json!({"error": "nothing to record: this agent runs without the sensor"}),
            },
            Err(error) => json!({"error": format!("invalid request: {error}")}),
        };
        let answer = format!("{answer}\n");
        Ok(tokio::time::timeout(ANSWER_WAIT, writer.write_all(answer.as_bytes())).await??)
    }

    async fn status(&self) -> Json {
        let mut status = (self.status)();
        let deadline = Instant::now() + STATUS_WAIT;
        let answers: Vec<_> = self.lanes.iter().map(|lane| (lane.name(), lane.status())).collect();
        let (mut lanes, mut silent) = (Vec::new(), Vec::new());
        for (name, answer) in answers {
            match timeout_at(deadline, answer).await {
                Ok(Ok(lane)) => lanes.push(lane),
                Ok(Err(_)) | Err(_) => silent.push(name),
            }
        }
        status["lanes"] = lanes.into();
        status["lanes_not_responding"] = silent.into();
        status["budgets"] = json!([self.waiting.status()]);
        status
    }

    fn filter(&self, query: Option<&str>) -> Result<Option<Matcher>> {
        let Some(query) = query else { return Ok(None) };
        filter(query, &self.schema).map(Some)
    }

    async fn events(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        filter: Option<Matcher>,
        enough: impl Future<Output = ()>,
    ) -> Result<()> {
        let (subscriber, waiting) = self.subscriber(false);
        let missed = subscriber.missed.clone();
        for lane in &self.lanes {
            lane.subscribe(subscriber.clone());
        }
        drop(subscriber);
        self.pass_on(writer, waiting, &missed, filter, enough).await
    }

    async fn record(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        lane: &LaneClient,
        enough: impl Future<Output = ()>,
    ) -> Result<()> {
        let (subscriber, waiting) = self.subscriber(true);
        let missed = subscriber.missed.clone();
        lane.subscribe(subscriber);
        self.pass_on(writer, waiting, &missed, None, enough).await
    }

    fn subscriber(&self, wants_running: bool) -> (Subscriber, mpsc::UnboundedReceiver<WaitingEvent>) {
        let (events, waiting) = mpsc::unbounded_channel();
        let meters = [Meter::new("client", CLIENT_BYTES_MAX), self.waiting.clone()];
        (Subscriber { events, meters, missed: Arc::default(), wants_running }, waiting)
    }

    /// Writes the events that arrive, as many at once as there are, and the number of dropped ones before them.
    async fn pass_on(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        mut waiting: mpsc::UnboundedReceiver<WaitingEvent>,
        missed: &AtomicU64,
        mut filter: Option<Matcher>,
        enough: impl Future<Output = ()>,
    ) -> Result<()> {
        let (mut events, mut text) = (Vec::new(), Vec::new());
        let (mut enough, mut is_enough) = (pin!(enough), false);
        loop {
            tokio::select! {
                count = waiting.recv_many(&mut events, EVENTS_AT_ONCE_MAX) => if count == 0 { return Ok(()) },
                () = &mut enough, if !is_enough => {
                    is_enough = true;
                    waiting.close();
                }
            }
            text.clear();
            let missed = missed.swap(0, Relaxed);
            if missed > 0 {
                text.extend_from_slice(format!("{}\n", json!({"missed": missed})).as_bytes());
            }
            for waiting in events.drain(..) {
                if filter.as_mut().is_none_or(|filter| filter.matches(waiting.event())) {
                    recording::write_line(waiting.event(), &self.schema, &mut text);
                }
                if text.len() >= WRITE_BYTES {
                    writer.write_all(&text).await?;
                    text.clear();
                }
            }
            writer.write_all(&text).await?;
        }
    }
}

/// Compiles a filter in KQL.
///
/// # Errors
/// The query is invalid.
pub(crate) fn filter(query: &str, schema: &Schema) -> Result<Matcher> {
    match kql::parse(query, &mut schema.clone()) {
        Ok((query, _)) => Ok(Matcher::new([&query])),
        Err(faults) => {
            let faults: Vec<_> = faults
                .iter()
                .map(|fault| match &fault.help {
                    Some(help) => format!("{}: {} ({help})", fault.code.id, fault.message),
                    None => format!("{}: {}", fault.code.id, fault.message),
                })
                .collect();
            bail!("invalid filter: {}", faults.join("; "))
        }
    }
}
