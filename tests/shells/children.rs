//! The processes that are started for a row, and their end.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lapwing_stage::{Host, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::data::{Act, Data, PATH, Words};

/// How long a compiler may take.
const BUILD: Duration = Duration::from_secs(180);
/// How often the test searches for remaining processes of a row.
const SWEEPS: usize = 20;
/// The environment variable that marks the processes of a row, in addition to their folder.
const MARK: &str = "LAPWING_SHELL";

/// A child that is ended when this is dropped.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prepares the row's folder. The error is the compiler's output.
pub(crate) fn prepare(data: &Data, act: &Act, words: &Words) -> Result<(), String> {
    let folder = Path::new(&words.folder);
    fs::create_dir(folder).expect("a folder");
    // Another user may write a file there as the proof.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("its mode");
    let shared = act.shared.iter().map(|name| (name, &data.files[name]));
    for (name, text) in act.files.iter().chain(shared) {
        let path = folder.join(name);
        fs::write(&path, words.fill(text)).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    fs::write(folder.join("typed"), words.fill(&act.run)).expect("a file");
    if act.build.is_empty() {
        return Ok(());
    }
    let mut bash = Command::new("bash");
    bash.args(["-ec", &words.fill(&act.build)]).env("PATH", PATH).current_dir(folder).stdin(Stdio::null());
    into_file(&mut bash, &folder.join("output"));
    let mut child = Ended(bash.spawn().expect("bash"));
    let status =
        until("the compiler's end", BUILD, || Ok(child.0.try_wait()?)).map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("it cannot be built: {}", last_words(folder))) }
}

/// Runs the row's script on this host as a service: without a terminal, in a new session.
pub(crate) fn run(host: &Host, act: &Act, words: &Words) -> Ended {
    let mut words_of_user = Vec::new();
    if let Some(user) = &act.user {
        words_of_user =
            ["setpriv", "--reuid", user, "--regid", "65534", "--clear-groups"].map(str::to_owned).into();
    }
    let script = format!("{}/typed", words.folder);
    on(host, words, "output", &[words_of_user, vec!["bash".to_owned(), script]].concat())
}

/// Runs a script on a host, with its output in a file of the row's folder.
pub(crate) fn script(host: &Host, words: &Words, output: &str, script: &str) -> Ended {
    on(
        host,
        words,
        output,
        &["bash".to_owned(), "-ec".to_owned(), format!("{}\nexit $?", words.fill(script))],
    )
}

fn on(host: &Host, words: &Words, output: &str, arguments: &[String]) -> Ended {
    // Not `ip netns exec`: it changes the mount namespace.
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", host.network().display())).arg("setsid").args(arguments);
    command.current_dir(&words.folder).env("PATH", PATH).env(MARK, &words.folder).stdin(Stdio::null());
    into_file(&mut command, &Path::new(&words.folder).join(output));
    Ended(command.spawn().expect("nsenter"))
}

fn into_file(command: &mut Command, path: &Path) {
    let file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
    command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
}

/// The end of a row's output.
pub(crate) fn last_words(folder: &Path) -> String {
    let text = ["output", "client", "server"].map(|name| {
        let bytes = fs::read(folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(300)..]).into_owned()
    });
    text.concat().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Ends all remaining processes of a row, with any parent.
pub(crate) fn sweep(folder: &str) {
    end_all(|process| is_of(process, folder));
}

/// Ends all remaining processes of a host.
pub(crate) fn sweep_host(host: &Host) {
    let inode = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.ino());
    let network = inode(&host.network());
    end_all(|process| network.is_some() && inode(&process.join("ns/net")) == network);
}

/// Ends all processes whose folders below `/proc` satisfy the condition.
fn end_all(holds: impl Fn(&Path) -> bool) {
    for _ in 0..SWEEPS {
        let left: Vec<_> =
            processes().filter(|pid| holds(&Path::new("/proc").join(pid.to_string()))).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            // It may have ended since.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether a process was started for the row with this folder, and lives.
fn is_of(process: &Path, folder: &str) -> bool {
    let marked = format!("{MARK}={folder}");
    let has_word = |file: &str, holds: &dyn Fn(&str) -> bool| {
        let bytes = fs::read(process.join(file)).unwrap_or_default();
        bytes.split(|byte| *byte == 0).any(|word| holds(&String::from_utf8_lossy(word)))
    };
    let is_in = |link: &str| fs::read_link(process.join(link)).is_ok_and(|path| path.starts_with(folder));
    // A process that has ended has no environment.
    has_word("environ", &|word| word == marked)
        || has_word("cmdline", &|word| word.contains(&format!("{folder}/")))
        || ["cwd", "root", "exe"].into_iter().any(is_in)
}
