//! Real servers that receive alerts. Each runs on the loopback of the test's own network namespace. So ports never
//! collide, and a server reaches no other host.
//!
//! They are installed at the first use: two servers with `_bulk` from PyPI, and nginx from the distribution.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value as Json, json};

use crate::pypi::{Environment, UPSTREAM, run, test_servers};
use crate::wait::until;

/// How long a server may take to listen.
const READY: Duration = Duration::from_secs(60);
/// The distribution's nginx.
const NGINX: &str = "/usr/sbin/nginx";

/// Moves this thread, and the processes that it starts, to a new network namespace. It needs root.
///
/// # Errors
/// The missing requirement, with the remedy.
pub fn private_network() -> Result<()> {
    // The new namespace cannot reach PyPI.
    Environment::install(UPSTREAM)?;
    nginx_program()?;
    unshare(CloneFlags::CLONE_NEWNET).context("no network of its own")?;
    run(Command::new("ip").args(["link", "set", "lo", "up"]), "install the package iproute2")
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts a server, and waits until it listens on this port of the loopback.
    ///
    /// # Errors
    /// It cannot be started, or does not listen.
    pub fn start(command: &mut Command, port: u16) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self(command.spawn().with_context(|| format!("{command:?}"))?);
        until(&format!("{command:?}"), READY, || match server.0.try_wait()? {
            Some(status) => bail!("{command:?} ended with {status}"),
            None => Ok(TcpStream::connect(("127.0.0.1", port)).ok()),
        })?;
        Ok(server)
    }

    /// Sends a signal, such as `SIGSTOP` or `SIGCONT`, that connected clients do not notice.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.0.id().try_into()?), signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An OpenSearch-compatible server, strict about documents, on port 9200; it keeps what it has until it ends.
///
/// # Errors
/// It cannot be started.
pub fn opensearch() -> Result<Server> {
    let program = Environment::install(UPSTREAM)?.module_file("osmem_server/bin/osmem-server")?;
    Server::start(Command::new(program).args(["-addr", "127.0.0.1:9200", "-no-stdin-watch"]), 9200)
}

/// An Elasticsearch-compatible server that has data streams, on port 9200.
///
/// # Errors
/// It cannot be started.
pub fn elasticsearch(folder: &Path) -> Result<Server> {
    let mut command = Command::new(Environment::install(UPSTREAM)?.module_file("noida_db/noida-db")?);
    Server::start(command.args(["start", "--only", "elasticsearch", "--data-dir"]).arg(folder), 9200)
}

/// nginx in the foreground with this `http` section, on port 9443.
///
/// # Errors
/// It cannot be started.
pub fn nginx(folder: &Path, http: &str) -> Result<Server> {
    let config = format!(
        "daemon off; master_process off; user root; pid nginx.pid; error_log error.log;\nevents {{}}\n\
         http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; \
         uwsgi_temp_path uwsgi; scgi_temp_path scgi; server_tokens off;\n{http}\n}}"
    );
    fs::write(folder.join("nginx.conf"), config)?;
    Server::start(Command::new(nginx_program()?).arg("-p").arg(folder).args(["-c", "nginx.conf"]), 9443)
}

/// An HTTP server on port 8080 that records what it receives in `folder`, and answers as configured.
#[derive(Debug)]
pub struct Receiver {
    folder: PathBuf,
    server: Server,
}

impl Receiver {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(folder: &Path) -> Result<Self> {
        let script = folder.join("receiver.py");
        fs::write(&script, include_str!("receiver.py"))?;
        let mut command = Command::new(Environment::install(UPSTREAM)?.program("python"));
        let server = Server::start(command.arg(script).arg("8080").arg(folder), 8080)?;
        Ok(Self { folder: folder.to_owned(), server })
    }

    /// The process.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The received requests, oldest first.
    ///
    /// # Errors
    /// The receiver's file is not valid.
    pub fn requests(&self) -> Result<Vec<Request>> {
        requests(&self.folder)
    }

    /// The bodies of the requests that were answered 200.
    ///
    /// # Errors
    /// As of [`requests`](Self::requests).
    pub fn taken(&self) -> Result<Vec<String>> {
        taken(&self.folder)
    }

    /// Sets the answers to the next requests, each as `{"status": …, "headers": …, "body": …}`.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn answer(&self, answers: impl IntoIterator<Item = Json>) -> Result<()> {
        let lines: String = answers.into_iter().map(|answer| format!("{answer}\n")).collect();
        Ok(fs::write(self.folder.join("answers.ndjson"), lines)?)
    }
}

/// The requests that a receiver with this folder received, oldest first, also after its end.
///
/// # Errors
/// The receiver's file is not valid.
pub fn requests(folder: &Path) -> Result<Vec<Request>> {
    let text = fs::read_to_string(folder.join("requests.ndjson")).unwrap_or_default();
    // The last line may not be complete.
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole.lines().map(|line| Ok(Request(serde_json::from_str(line)?))).collect()
}

/// The bodies of these requests that were answered 200.
///
/// # Errors
/// As of [`requests`].
pub fn taken(folder: &Path) -> Result<Vec<String>> {
    requests(folder)?.iter().filter(|request| request.status() == 200).map(Request::body).collect()
}

/// A request as it was received.
#[derive(Debug)]
pub struct Request(Json);

impl Request {
    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> u64 {
        self.0["status"].as_u64().unwrap_or_default()
    }

    /// Method and path.
    #[must_use]
    pub fn line(&self) -> String {
        let text = |name: &str| self.0[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("method"), text("path"))
    }

    /// A header, its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0["headers"][name].as_str()
    }

    /// The body.
    ///
    /// # Errors
    /// It is not a text.
    pub fn body(&self) -> Result<String> {
        let bytes = base64::prelude::BASE64_STANDARD.decode(self.0["body"].as_str().unwrap_or_default())?;
        Ok(String::from_utf8(bytes)?)
    }
}

/// The JSON answer of a server to `curl` with these arguments.
///
/// # Errors
/// There is no answer, or it is not JSON.
pub fn curl(arguments: &[&str]) -> Result<Json> {
    let output = Command::new("curl").args(["-sS", "-m", "10"]).args(arguments).output().context("curl")?;
    serde_json::from_slice(&output.stdout).map_err(|_| anyhow!("curl {arguments:?}: {output:?}"))
}

/// The ids of all documents in an index of the server on port 9200, sorted.
///
/// # Errors
/// As of [`curl`].
pub fn ids_in_index(index: &str) -> Result<Vec<String>> {
    curl(&["-XPOST", "http://127.0.0.1:9200/_refresh"])?;
    let url = format!("http://127.0.0.1:9200/{index}/_search");
    let mut ids = Vec::new();
    // A search returns at most ten thousand documents.
    let mut query = json!({"size": 5000, "_source": false, "sort": ["event.id.keyword"]});
    loop {
        let answer = curl(&[&url, "-H", "Content-Type: application/json", "-d", &query.to_string()])?;
        let hits = answer["hits"]["hits"].as_array().with_context(|| answer.to_string())?;
        let Some(last) = hits.last() else { return Ok(ids) };
        query["search_after"] = last["sort"].clone();
        ids.extend(hits.iter().map(|hit| hit["_id"].as_str().unwrap_or_default().to_owned()));
    }
}

/// Creates a certificate authority and a certificate for `localhost` and 127.0.0.1, each as `name.pem` and `name.key`.
///
/// # Errors
/// The error of `openssl`.
pub fn certificates(folder: &Path) -> Result<()> {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem
        for name in server client; do
            openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
            printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
        done";
    run(Command::new("sh").args(["-ec", script]).current_dir(folder), "install the package openssl")
}

/// The system's nginx. If there is none, its package is unpacked, not installed.
fn nginx_program() -> Result<PathBuf> {
    let folder = test_servers().join("nginx");
    let own = folder.join(NGINX.trim_start_matches('/'));
    if let Some(program) = [Path::new(NGINX), &own].into_iter().find(|program| program.exists()) {
        return Ok(program.to_owned());
    }
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.with_extension("lock"))?;
    lock.lock()?;
    let script = "apt-get download -qq nginx; dpkg -x nginx_*.deb new; rm nginx_*.deb; mv new/* .";
    if !own.exists() {
        run(
            Command::new("sh").args(["-ec", script]).current_dir(&folder),
            "install the package nginx-light",
        )?;
    }
    Ok(own)
}
