//! The control socket: how `lapwing status` and `lapwing events` ask the agent that runs.
//!
//! A client sends one line, a [`Request`] as JSON, and is answered by lines of JSON until the connection ends. A line
//! with `error` says why there is no other answer.

mod server;

pub(crate) use server::{Server, filter};

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// `[control]`: how commands reach the agent.
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

/// What the agent can be asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    /// How it does: one line.
    Status,
    /// Its events from now on, a line each.
    Events {
        /// A condition in KQL that they must meet.
        query: Option<String>,
    },
}

/// The lines of the agent's answer.
pub(crate) struct Answer(BufReader<UnixStream>);

/// Asks the agent whose socket this is; `None` where no agent listens there.
///
/// # Errors
/// The socket is there and cannot be used.
pub(crate) fn ask(socket: &Path, request: &Request) -> Result<Option<Answer>> {
    use std::io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound, PermissionDenied};
    let mut stream = match UnixStream::connect(socket) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => {
            let cure = match error.kind() {
                PermissionDenied => "; run as root, or as the agent's user",
                _ => "",
            };
            bail!("the control socket {} cannot be used: {error}{cure}", socket.display())
        }
        Ok(stream) => stream,
    };
    writeln!(stream, "{}", serde_json::to_string(request)?).context("the agent does not listen")?;
    Ok(Some(Answer(BufReader::new(stream))))
}

impl Iterator for Answer {
    type Item = Result<Json>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).context("the agent went away");
        match read {
            Ok(0) => None,
            Ok(_) => Some(parse(&line)),
            Err(error) => Some(Err(error)),
        }
    }
}

fn parse(line: &str) -> Result<Json> {
    let json: Json = serde_json::from_str(line).context("the agent answers something that is no JSON")?;
    match json.get("error").and_then(Json::as_str) {
        Some(error) => Err(anyhow!("{error}")),
        None => Ok(json),
    }
}
