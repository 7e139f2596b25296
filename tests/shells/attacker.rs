//! The attacker's end of a shell: it listens or connects, types lines, and reads whatever comes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lapwing_stage::{Host, until};

use crate::children::Ended;
use crate::data::{Kind, Shell, Words};

/// How long an attempt to connect may take, and how long it is until the next.
const CONNECT: Duration = Duration::from_millis(200);
/// How long a program that speaks TLS may take to listen.
const READY: Duration = Duration::from_secs(10);
/// How long a program that speaks TLS has until it is taken for connected.
const HANDSHAKE: Duration = Duration::from_millis(700);

/// The attacker. It is made, and works, in a thread that is on the host far away.
pub(crate) struct Attacker {
    end: End,
    second: Second,
    is_bytewise: bool,
}

enum End {
    Listens(TcpListener, Vec<TcpStream>),
    Connects(SocketAddr, Option<TcpStream>, Instant),
    Datagrams(UdpSocket, Option<SocketAddr>),
    /// A program that speaks TLS, as its arguments, and since when it runs.
    Tool(Vec<String>, Ended, Instant),
}

/// The second port: it answers requests by HTTP, and reads whatever else comes.
struct Second {
    listener: TcpListener,
    streams: Vec<TcpStream>,
    answer: String,
}

impl Attacker {
    pub(crate) fn new(shell: &Shell, words: &Words, host: &Host, certificates: &Path) -> Self {
        let port = words.port;
        let end = match (shell.kind, shell.tls) {
            (Kind::Reverse, false) => End::Listens(listener(port), Vec::new()),
            (Kind::Udp, _) => End::Datagrams(datagrams(port), None),
            (Kind::Bind, false) => {
                let address = SocketAddr::new(words.near.parse().expect("an address"), port);
                End::Connects(address, None, Instant::now())
            }
            (Kind::Reverse, true) => {
                let file = |name: &str| certificates.join(name).display().to_string();
                let (certificate, key) = (file("server.pem"), file("server.key"));
                let text = port.to_string();
                let end =
                    tool(&["s_server", "-quiet", "-accept", &text, "-cert", &certificate, "-key", &key]);
                until("the attacker", READY, || Ok(host.listens(port)?.then_some(()))).expect("openssl");
                end
            }
            (Kind::Bind, true) => {
                let address = format!("{}:{port}", words.near);
                tool(&["s_client", "-quiet", "-connect", &address])
            }
        };
        let answer = shell.serve.as_deref().map(|text| words.fill(text)).unwrap_or_default();
        let second = Second { listener: listener(words.second_port()), streams: Vec::new(), answer };
        Self { end, second, is_bytewise: shell.bytewise }
    }

    /// Accepts, connects and reads what there is, and waits for nothing; returns whether there is a shell to type to.
    pub(crate) fn look(&mut self) -> bool {
        self.second.look();
        match &mut self.end {
            End::Listens(listener, streams) => {
                accept(listener, streams);
                streams.retain_mut(|stream| read(stream).is_some());
                !streams.is_empty()
            }
            End::Connects(address, stream, tried) => {
                if stream.is_none() && tried.elapsed() > CONNECT {
                    *tried = Instant::now();
                    *stream = TcpStream::connect_timeout(address, CONNECT).ok().filter(unblock);
                }
                if stream.as_mut().is_some_and(|stream| read(stream).is_none()) {
                    *stream = None;
                }
                stream.is_some()
            }
            End::Datagrams(socket, peer) => {
                let mut bytes = [0; 65_536];
                while let Ok((_, address)) = socket.recv_from(&mut bytes) {
                    *peer = Some(address);
                }
                peer.is_some()
            }
            End::Tool(arguments, child, since) => {
                let is_over = !matches!(child.0.try_wait(), Ok(None));
                if is_over && since.elapsed() > CONNECT {
                    *child = start(arguments);
                    *since = Instant::now();
                }
                !is_over && since.elapsed() > HANDSHAKE
            }
        }
    }

    /// Types something to everybody who is there.
    pub(crate) fn say(&mut self, text: &str) {
        let bytes = text.as_bytes();
        // Who has gone hears nothing.
        match &mut self.end {
            End::Listens(_, streams) => streams.iter_mut().for_each(|stream| drop(stream.write_all(bytes))),
            End::Connects(_, stream, _) => stream.iter_mut().for_each(|stream| drop(stream.write_all(bytes))),
            End::Tool(_, child, _) => child.0.stdin.iter_mut().for_each(|input| drop(input.write_all(bytes))),
            End::Datagrams(socket, peer) => {
                let parts = bytes.chunks(if self.is_bytewise { 1 } else { bytes.len() });
                parts.for_each(|part| peer.iter().for_each(|peer| drop(socket.send_to(part, peer))));
            }
        }
    }
}

impl Second {
    fn look(&mut self) {
        accept(&self.listener, &mut self.streams);
        let answer = &self.answer;
        self.streams.retain_mut(|stream| {
            let Some(bytes) = read(stream) else { return false };
            if answer.is_empty() || !bytes.starts_with(b"GET ") {
                return true;
            }
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
            let _ = stream.write_all((head + answer).as_bytes());
            false
        });
    }
}

fn tool(arguments: &[&str]) -> End {
    let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let child = start(&arguments);
    End::Tool(arguments, child, Instant::now())
}

fn start(arguments: &[String]) -> Ended {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Ended(command.spawn().expect("openssl"))
}

fn listener(port: u16) -> TcpListener {
    let listener = TcpListener::bind(("::", port)).expect("a port of the attacker");
    listener.set_nonblocking(true).expect("a socket that does not block");
    listener
}

fn datagrams(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(("::", port)).expect("a port of the attacker");
    socket.set_nonblocking(true).expect("a socket that does not block");
    socket
}

fn unblock(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).is_ok()
}

fn accept(listener: &TcpListener, streams: &mut Vec<TcpStream>) {
    while let Ok((stream, _)) = listener.accept() {
        streams.extend(Some(stream).filter(unblock));
    }
}

/// What has come; nothing where the other end has closed.
fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut came = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return None,
            Ok(count) => came.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(came),
            Err(_) => return None,
        }
    }
}
