//! Programs that run on a host.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::wait::wait_for_some;

/// How long [`Command::output`] and [`Process::wait`] wait unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs that a network has running, so that they can be ended with it.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    children: Mutex<BTreeMap<u32, Arc<Mutex<Child>>>>,
}

impl Processes {
    fn children(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Mutex<Child>>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills all of them, each with its process group, and reaps them.
    pub(crate) fn kill_all(&self) {
        let children = std::mem::take(&mut *self.children());
        for child in children.into_values() {
            kill_group(&mut child.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Leaves all of them running.
    pub(crate) fn forget_all(&self) {
        self.children().clear();
    }
}

/// A program to be run on a host, made by [`Host::command`].
///
/// It runs in a process group of its own, with nothing on standard input unless [`input`](Self::input) says
/// otherwise. It sees the host's interfaces in `/sys/class/net`, too; all other files are the machine's, `/etc/resolv.conf`
/// included: use addresses, not names.
#[derive(Debug)]
#[must_use = "nothing runs before `output`, `check` or `spawn`"]
pub struct Command {
    host: Host,
    command: std::process::Command,
    input: Vec<u8>,
    within: Duration,
}

impl Command {
    pub(crate) fn new(host: Host, program: &OsStr) -> Self {
        Self { host, command: std::process::Command::new(program), input: Vec::new(), within: PATIENCE }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets the working directory.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// What the program finds on standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// How long the program may take in [`output`](Self::output) and [`check`](Self::check); 60 s unless told.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// Runs the program to its end, whatever its exit status.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be started, [`Error::Deadline`] (with what it printed) when it does not end in
    /// time: it is killed then.
    pub fn output(self) -> Result<Output> {
        let within = self.within;
        let process = self.spawn()?;
        let status = process.wait_within(within);
        if status.is_err() {
            process.kill();
        }
        let output = Output {
            command: process.command.clone(),
            place: process.host.to_string(),
            status: status?,
            stdout: process.stdout(),
            stderr: process.stderr(),
        };
        // Its output has been read; of many short programs nothing shall pile up.
        for file in [&process.stdout, &process.stderr] {
            let _ = fs::remove_file(file);
        }
        Ok(output)
    }

    /// Runs the program to its end, demands exit status 0 and returns its standard output.
    ///
    /// # Errors
    ///
    /// As [`output`](Self::output), and [`Error::Failed`] with what it printed on another exit status.
    pub fn check(self) -> Result<String> {
        self.output()?.check()
    }

    /// Starts the program. It is killed, with its process group, when the network goes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be started.
    pub fn spawn(mut self) -> Result<Process> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let command = line(&self.command);
        let what = format!("starting `{command}` on {}", self.host);
        let name = Path::new(self.command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = format!("{}.{name}.{}-{number}", self.host.name(), std::process::id());
        let file = |ending: &str| self.host.network().directory.join(format!("{base}.{ending}"));
        let (stdout, stderr) = (file("out"), file("err"));
        let create = |path: &Path| {
            File::create(path).map_err(Error::io(format!("{what}: creating {}", path.display())))
        };
        self.command.stdout(create(&stdout)?).stderr(create(&stderr)?).process_group(0);
        self.command.stdin(if self.input.is_empty() {
            Stdio::null()
        } else {
            // A file, not a pipe: nobody has to feed it.
            let fill = || -> io::Result<File> {
                let path = file("in");
                let mut input =
                    File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
                fs::remove_file(&path)?;
                input.write_all(&self.input)?;
                input.rewind()?;
                Ok(input)
            };
            fill().map_err(Error::io(format!("{what}: preparing its input")))?.into()
        });
        let spawned = self.host.run(|| self.command.spawn())?;
        let child = Arc::new(Mutex::new(spawned.map_err(Error::io(what))?));
        let pid = lock(&child).id();
        self.host.network().processes.children().insert(pid, Arc::clone(&child));
        Ok(Process { host: self.host, command, child, pid, stdout, stderr })
    }
}

/// A program's end and what it printed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed to standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// What it printed to standard error, invalid UTF-8 replaced.
    pub stderr: String,
    command: String,
    place: String,
}

impl Output {
    /// Demands exit status 0 and returns the standard output.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with what it printed.
    pub fn check(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let output = said.trim().to_owned();
        Err(Error::Failed { command: self.command, place: self.place, status: self.status, output })
    }
}

/// A running program, made by [`Command::spawn`].
///
/// Dropping it does not end the program: it runs until it ends itself, is killed, or the network goes.
#[derive(Debug)]
pub struct Process {
    host: Host,
    command: String,
    child: Arc<Mutex<Child>>,
    pid: u32,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// The process id; also that of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has printed to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has printed to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(None))
    }

    /// Waits for its end, at most 60 s.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with what it printed.
    pub fn wait(&self) -> Result<ExitStatus> {
        self.wait_within(PATIENCE)
    }

    /// Waits for its end, at most `within`.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with what it printed.
    pub fn wait_within(&self, within: Duration) -> Result<ExitStatus> {
        let what = format!("`{}` on {} to end", self.command, self.host);
        let ended = wait_for_some(&what, within, || lock(&self.child).try_wait().transpose());
        let status = ended.map_err(|error| self.explain(error))?.map_err(Error::io(what))?;
        self.host.network().processes.children().remove(&self.pid);
        Ok(status)
    }

    /// Waits until it has printed `text`, to standard output or error.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with what it printed instead; at once when it ends without having printed it.
    pub fn wait_for_output(&self, text: &str, within: Duration) -> Result<()> {
        let what = format!("`{}` on {} to print {text:?}", self.command, self.host);
        let printed = wait_for_some(&what, within, || {
            let running = self.is_running();
            let found = self.stdout().contains(text) || self.stderr().contains(text);
            (found || !running).then_some(found)
        });
        match printed {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.explain(Error::Deadline { what, within, detail: "; it ended".to_owned() })),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Sends a signal to the process itself, not to its group. One that has ended gets none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = lock(&self.child);
        // Under the lock nobody else reaps it, so that the pid is still its own.
        if !matches!(child.try_wait(), Ok(None)) {
            return Ok(());
        }
        kill(pid(&child), signal).map_err(|errno| {
            Error::io(format!("sending {signal} to `{}` on {}", self.command, self.host))(errno.into())
        })
    }

    /// Kills it with SIGKILL, with its process group, and waits for its end.
    pub fn kill(&self) {
        kill_group(&mut lock(&self.child));
        self.host.network().processes.children().remove(&self.pid);
    }

    /// Adds what the program printed to an error about it.
    fn explain(&self, error: Error) -> Error {
        match error {
            Error::Deadline { what, within, detail } => {
                let (stdout, stderr) = (self.stdout(), self.stderr());
                let detail = format!("{detail}; standard output {stdout:?}, standard error {stderr:?}");
                Error::Deadline { what, within, detail }
            }
            other => other,
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` on {} (pid {})", self.command, self.host, self.pid)
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("the kernel's process ids are positive and fit an i32"))
}

/// Kills the process group that the child leads. The child is not reaped before, so that its pid cannot be another's.
fn kill_group(child: &mut Child) {
    if let Ok(Some(_)) = child.try_wait() {
        // It ended by itself, and its number may be another's by now. What it left running is found by namespace.
        return;
    }
    let _ = killpg(pid(child), Signal::SIGKILL);
    let _ = child.wait();
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

fn line(command: &std::process::Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
