//! Machines on which the tests are run: this one, and guests with other kernels in an emulator. Each runs lines of
//! a shell and returns what they print.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell::{self, say};

/// How long a guest may say nothing. Single tests take minutes where others work on this machine too.
const SILENCE_MAX: Duration = Duration::from_secs(900);
/// What distinguishes the guest's own messages from what is printed in it.
const READY: &str = "@ready ";
const END: &str = "@end ";

/// A machine that runs tests.
pub(super) enum Machine {
    /// This one.
    Host,
    /// One in an emulator.
    Guest(Guest),
}

impl Machine {
    /// Which kernel runs there and on what processor, as in `6.1.0-56-cloud-amd64 x86_64`.
    ///
    /// # Errors
    /// It does not say.
    pub(super) fn kernel(&self) -> Result<String> {
        match self {
            Self::Host => Ok(shell::output(Command::new("uname").arg("-rm"))?.trim().to_owned()),
            Self::Guest(guest) => Ok(guest.kernel.clone()),
        }
    }

    /// Runs a line of a shell, hands over what it prints line by line, and returns whether it ended well.
    ///
    /// # Errors
    /// The machine itself fails.
    pub(super) fn run(&mut self, line: &str, mut printed: impl FnMut(&str)) -> Result<bool> {
        match self {
            Self::Guest(guest) => guest.run(line, printed),
            Self::Host => {
                let (reader, writer) = std::io::pipe()?;
                let mut shell = Command::new("sh");
                shell.args(["-c", line]).current_dir(shell::root()).stdin(Stdio::null());
                let mut child = shell.stdout(writer.try_clone()?).stderr(writer).spawn().context("sh")?;
                // It holds the pipe's other end: with it the reading would never end.
                drop(shell);
                for line in BufReader::new(reader).split(b'\n') {
                    printed(&String::from_utf8_lossy(&line?));
                }
                Ok(child.wait()?.success())
            }
        }
    }
}

/// How a kind of processor is emulated.
pub(super) struct Emulator {
    /// The program, and Debian's package that has it.
    pub(super) program: &'static str,
    pub(super) package: &'static str,
    /// What it emulates.
    pub(super) arguments: &'static [&'static str],
    /// The kernel's name of the serial line.
    pub(super) console: &'static str,
}

/// A machine in an emulator, which ends with this.
pub(super) struct Guest {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    kernel: String,
}

impl Guest {
    /// Boots a kernel with its first file system, and waits until it is ready.
    ///
    /// # Errors
    /// The emulator is missing, or the guest does not come up.
    pub(super) fn boot(emulator: &Emulator, kernel: &Path, initial: &Path) -> Result<Self> {
        for (program, package) in [(emulator.program, emulator.package), ("setpriv", "util-linux")] {
            if !shell::exists(program) {
                bail!("`{program}` is missing: run `apt-get install --no-install-recommends {package}`");
            }
        }
        // An emulated processor may run what another one is patching just then, as kernels do while they boot.
        Self::boot_once(emulator, kernel, initial).or_else(|error| {
            say(&format!("{error:#}\nbooting it once more"));
            Self::boot_once(emulator, kernel, initial)
        })
    }

    fn boot_once(emulator: &Emulator, kernel: &Path, initial: &Path) -> Result<Self> {
        // However this ends, the emulator ends with it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", emulator.program]).args(emulator.arguments);
        command.args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "3072", "-nic", "none", "-no-reboot"]);
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-append"]);
        command.arg(format!("console={} quiet loglevel=1 panic=-1", emulator.console));
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initial);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the emulator")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = (input.context("a pipe")?, output.context("a pipe")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                // There is no receiver any more when the guest is dropped.
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut guest = Self { child, input, lines, kernel: String::new() };
        let mut said = Vec::new();
        let ready = guest.read_until(READY, |line| said.push(line.to_owned()));
        guest.kernel = ready.with_context(|| format!("the guest did not come up:\n{}", said.join("\n")))?;
        Ok(guest)
    }

    fn run(&mut self, line: &str, printed: impl FnMut(&str)) -> Result<bool> {
        writeln!(self.input, "{line}").context("the emulator has ended")?;
        Ok(self.read_until(END, printed)? == "0")
    }

    /// Reads up to the line with this beginning, and returns the rest of it.
    fn read_until(&mut self, mark: &str, mut printed: impl FnMut(&str)) -> Result<String> {
        loop {
            let line = self.lines.recv_timeout(SILENCE_MAX);
            let line = line.context("the guest says nothing any more")?;
            match line.strip_prefix(mark) {
                Some(rest) => return Ok(rest.trim().to_owned()),
                None => printed(&line),
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            say(&format!("the emulator cannot be ended: {error}"));
        }
    }
}

/// The kernel's image below the folder that its package was unpacked to.
///
/// # Errors
/// There is none.
pub(super) fn image(root: &Path) -> Result<std::path::PathBuf> {
    let folder = root.join("boot");
    let images = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut images = images.flatten().map(|entry| entry.path());
    let is_image = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    };
    images.find(is_image).with_context(|| format!("no kernel in {}", folder.display()))
}
