//! Real servers for tests, each on the loopback of a network of the test's own: ports never collide, and what a server
//! does reaches nobody.
//!
//! They are fetched on first use into `test-servers` below Cargo's target folder: two from PyPI that speak `_bulk`, and
//! nginx from the distribution.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::{is_root, wait_until};

/// What is installed, exactly.
const PACKAGES: &[&str] = &["noida-db==0.2.3", "osmem-server==0.1.6", "standardwebhooks==1.1.0"];

/// Gives this thread, and what it starts, a network of their own. Says `false`, and why, where that cannot be.
pub(crate) fn private_network() -> bool {
    if !is_root() {
        return false;
    }
    // From there nothing could be fetched.
    test_servers();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    run(Command::new("ip").args(["link", "set", "lo", "up"]), "install the package iproute2");
    true
}

/// A server that runs until it is dropped.
pub(crate) struct Server(Child);

impl Server {
    fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until(&format!("{command:?} listens"), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self(child)
    }

    /// Sends a signal, such as `STOP` or `CONT`, that stays unnoticed by whoever is connected.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An OpenSearch-compatible server, strict about documents, on port 9200; it keeps what it has until it ends.
pub(crate) fn opensearch() -> Server {
    let binary = python_packages().join("osmem_server/bin/osmem-server");
    Server::start(Command::new(binary).args(["-addr", "127.0.0.1:9200", "-no-stdin-watch"]), 9200)
}

/// An Elasticsearch-compatible server that has data streams, on port 9200.
pub(crate) fn elasticsearch(folder: &Path) -> Server {
    let binary = python_packages().join("noida_db/noida-db");
    let mut command = Command::new(binary);
    Server::start(command.args(["start", "--only", "elasticsearch", "--data-dir"]).arg(folder), 9200)
}

/// nginx in the foreground with this `http` section, on port 9443.
pub(crate) fn nginx(folder: &Path, http: &str) -> Server {
    let config = format!(
        "daemon off; master_process off; user root; pid nginx.pid; error_log error.log;\nevents {{}}\n\
         http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; \
         uwsgi_temp_path uwsgi; scgi_temp_path scgi; server_tokens off;\n{http}\n}}"
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    Server::start(Command::new(nginx_binary()).arg("-p").arg(folder).args(["-c", "nginx.conf"]), 9443)
}

/// An HTTP server on port 8080 that writes down what it receives in `folder`, and answers as it is told.
pub(crate) struct Receiver {
    folder: PathBuf,
    _server: Server,
}

impl Receiver {
    pub(crate) fn start(folder: &Path) -> Self {
        let script = folder.join("receiver.py");
        fs::write(&script, include_str!("receiver.py")).unwrap();
        let server = Server::start(Command::new(python()).arg(script).arg("8080").arg(folder), 8080);
        Self { folder: folder.to_owned(), _server: server }
    }

    /// What was received, oldest first.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let text = fs::read_to_string(self.folder.join("requests.ndjson")).unwrap_or_default();
        // The last line may still be on its way.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(|line| Request(serde_json::from_str(line).unwrap())).collect()
    }

    /// The bodies of the requests that were answered 200.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.requests().iter().filter(|request| request.status() == 200).map(Request::body).collect()
    }

    /// Answers the next requests so: each `{"status": …, "headers": …, "body": …}`.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Value>) {
        let lines: String = answers.into_iter().map(|answer| format!("{answer}\n")).collect();
        fs::write(self.folder.join("answers.ndjson"), lines).unwrap();
    }
}

/// A request as it was received.
pub(crate) struct Request(Value);

impl Request {
    pub(crate) fn status(&self) -> u64 {
        self.0["status"].as_u64().unwrap()
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.0["method"].as_str().unwrap(), self.0["path"].as_str().unwrap())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.0["headers"][name].as_str()
    }

    pub(crate) fn body(&self) -> String {
        use base64::Engine as _;
        let bytes = base64::prelude::BASE64_STANDARD.decode(self.0["body"].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

/// What a server answers to `curl` with these arguments, as JSON.
pub(crate) fn curl(arguments: &[&str]) -> Value {
    let output = Command::new("curl").args(["-sS", "-m", "10"]).args(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("curl {arguments:?}: {output:?}"))
}

/// Makes a certificate authority and a certificate for `localhost` and 127.0.0.1, `name.pem` and `name.key` each.
pub(crate) fn certificates(folder: &Path) {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem
        for name in server client; do
            openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
            printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
        done";
    run(Command::new("sh").args(["-ec", script]).current_dir(folder), "install the package openssl");
}

fn python() -> PathBuf {
    test_servers().join("venv/bin/python")
}

fn python_packages() -> PathBuf {
    let library = test_servers().join("venv/lib");
    let version = fs::read_dir(library).unwrap().next().unwrap().unwrap();
    version.path().join("site-packages")
}

fn nginx_binary() -> PathBuf {
    let (system, own) = (Path::new("/usr/sbin/nginx"), test_servers().join("nginx/usr/sbin/nginx"));
    if system.exists() { system.to_owned() } else { own }
}

/// The folder of servers, which this fills on first use.
fn test_servers() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // The test's binary is in `target/debug/deps`.
        let folder = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("test-servers");
        fs::create_dir_all(&folder).unwrap();
        // Another test process may be at it.
        let lock = File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let installed = folder.join("installed");
        let wanted = PACKAGES.join("\n");
        if fs::read_to_string(&installed).is_ok_and(|packages| packages == wanted) {
            return folder;
        }
        eprintln!("fetching servers for tests into {}", folder.display());
        install(&folder);
        File::create(&installed).unwrap().write_all(wanted.as_bytes()).unwrap();
        folder
    })
}

fn install(folder: &Path) {
    let venv = folder.join("venv");
    let _ = fs::remove_dir_all(&venv);
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv), "install the package python3-venv");
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
    run(&mut pip, "PyPI must be reachable");
    if !Path::new("/usr/sbin/nginx").exists() {
        let script = "rm -rf nginx; mkdir -p nginx; apt-get download -qq nginx; dpkg -x nginx_*.deb nginx; rm nginx_*.deb";
        run(Command::new("sh").args(["-ec", script]).current_dir(folder), "install the package nginx-light");
    }
}

fn run(command: &mut Command, cure: &str) {
    let output = command.stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {}
        other => panic!("{command:?} does not work; {cure}: {other:?}"),
    }
}
