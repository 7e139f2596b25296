//! The control socket: how `lapwing status`, `lapwing events` and `lapwing record` query the running agent.
//!
//! A client sends one line, a [`Request`] as JSON, and receives lines of JSON until the connection ends. A line with
//! `error` reports that there is no other response.

mod server;

pub(crate) use server::{Server, check, filter};

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// How long a client waits for the agent in each step.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// `[control]`: the control socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The socket, for root and the agent's own user. Default: `/run/lapwing/control.sock`.
    pub(crate) socket: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { socket: "/run/lapwing/control.sock".into() }
    }
}

/// A request to the agent.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    /// Its status: one line.
    Status,
    /// Its events from now on, one line each.
    Events {
        /// A filter in KQL.
        query: Option<String>,
    },
    /// The sensor's events for a recording: first the running processes, then every event from now on, one line each.
    Record,
}

/// The lines of the agent's response.
pub(crate) struct Answer(BufReader<UnixStream>);

/// Sends a request to the agent at this socket; `None` if no agent listens there. No step takes longer than
/// [`ANSWER_WAIT`], even if the agent is stopped by a signal.
///
/// # Errors
/// The socket exists and cannot be used.
pub(crate) fn request(socket: &Path, request: &Request) -> Result<Option<Answer>> {
    use ErrorKind::{ConnectionRefused, NotADirectory, NotFound, PermissionDenied};
    let mut stream = match connect(socket) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => {
            let hint = match error.kind() {
                PermissionDenied => "; run as root, or as the agent's user",
                ErrorKind::WouldBlock => "; the agent accepts no more clients, or hangs",
                _ => "",
            };
            bail!("the control socket {} cannot be used: {error}{hint}", socket.display())
        }
        Ok(stream) => stream,
    };
    writeln!(stream, "{}", serde_json::to_string(request)?)
        .context("cannot send the request to the agent")?;
    Ok(Some(Answer(BufReader::new(stream))))
}

/// As [`UnixStream::connect`], but within [`ANSWER_WAIT`]: a full backlog would block it forever.
fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let wait = TimeVal::seconds(ANSWER_WAIT.as_secs().cast_signed());
    // The kernel waits for space in the backlog as long as for space to send.
    setsockopt(&socket, sockopt::SendTimeout, &wait)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &wait)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

impl Answer {
    /// The lines as they arrive. A line that does not arrive within `wait` is returned by a later call.
    ///
    /// # Errors
    /// The timeout cannot be set.
    pub(crate) fn lines(self, wait: Duration) -> Result<Lines> {
        let reader = self.0;
        reader.get_ref().set_read_timeout(Some(wait)).context("the control socket")?;
        Ok(Lines { reader, line: Vec::new() })
    }
}

/// The lines of a response, read with a timeout.
pub(crate) struct Lines {
    reader: BufReader<UnixStream>,
    line: Vec<u8>,
}

/// The result of waiting for a line.
pub(crate) enum Line<'a> {
    /// A line, with its end.
    Whole(&'a [u8]),
    /// This number of events was dropped, because they came faster than they were read.
    Missed(u64),
    /// No line arrived in time.
    Late,
    /// The response ended.
    End,
}

impl Lines {
    /// Ends the request: events on their way still arrive, and then the end.
    ///
    /// # Errors
    /// The agent closed the connection.
    pub(crate) fn enough(&self) -> Result<()> {
        self.reader.get_ref().shutdown(Shutdown::Write).context("the agent closed the connection")
    }

    /// The next line.
    ///
    /// # Errors
    /// The connection failed, or the agent reported an error.
    pub(crate) fn next(&mut self) -> Result<Line<'_>> {
        if self.line.ends_with(b"\n") {
            self.line.clear();
        }
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.starts_with(b"{\"error\":") => {
                parse(&String::from_utf8_lossy(&self.line)).map(|_| Line::End)
            }
            Ok(_) if self.line.ends_with(b"\n") => {
                Ok(missed(&self.line).map_or_else(|| Line::Whole(&self.line), Line::Missed))
            }
            Ok(_) => Ok(Line::End),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(Line::Late)
            }
            Err(error) => Err(error).context("the agent closed the connection"),
        }
    }
}

/// The number of dropped events in a line; `None` if the line is an event.
fn missed(line: &[u8]) -> Option<u64> {
    let number = line.strip_prefix(b"{\"missed\":")?.strip_suffix(b"}\n")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

impl Iterator for Answer {
    type Item = Result<Json>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(parse(&line)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Err(anyhow!(
                "the agent does not answer within {} s: it hangs, or is stopped",
                ANSWER_WAIT.as_secs()
            ))),
            Err(error) => Some(Err(error).context("the agent closed the connection")),
        }
    }
}

fn parse(line: &str) -> Result<Json> {
    let json: Json = serde_json::from_str(line).context("the agent sent invalid JSON")?;
    match json.get("error").and_then(Json::as_str) {
        Some(error) => Err(anyhow!("{error}")),
        None => Ok(json),
    }
}

#[cfg(test)]
mod tests {
    use super::missed;

    #[test]
    fn missed_events_are_distinguished_from_events() {
        for (line, events) in [
            (&b"{\"missed\":7}\n"[..], Some(7)),
            (b"{\"@timestamp\":\"2026-01-01T00:00:00Z\"}\n", None),
            (b"{\"missed\":7,\"event\":1}\n", None),
        ] {
            assert_eq!(missed(line), events, "{}", line.escape_ascii());
        }
    }
}
