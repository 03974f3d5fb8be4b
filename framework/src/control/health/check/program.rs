//! Programs: started by threads of their own, since that may wait for a disk; watched without waiting.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, unbounded};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::super::Outcome;
use super::super::error::reason;
use super::super::target::Command;

/// Programs are started by so many threads: one that waits for a file system does not keep the others.
const STARTERS: usize = 4;
/// So much is kept of what a program prints; the rest is read and thrown away.
const MOST_KEPT: usize = 4 << 10;
const LONGEST_LINE: usize = 200;
/// How long a killed program is waited for at the end; only one that hangs in the kernel takes longer.
const PATIENCE_MS: u16 = 1000;

/// The threads that start programs. What they have started, they send with the number of its check.
pub(in super::super) struct Starters {
    jobs: Option<Sender<(u64, Command)>>,
    waiting: Receiver<(u64, Command)>,
    started: Receiver<(u64, io::Result<Child>)>,
    threads: Vec<JoinHandle<()>>,
}

impl Starters {
    /// They live in the namespaces of the calling thread.
    pub(in super::super) fn new(wake: &Arc<EventFd>) -> io::Result<Self> {
        let (jobs, waiting) = unbounded();
        let (tell, started) = unbounded();
        let mut starters = Self { jobs: Some(jobs), waiting, started, threads: Vec::new() };
        for _ in 0..STARTERS {
            let (waiting, tell, wake) = (starters.waiting.clone(), tell.clone(), wake.clone());
            let thread = std::thread::Builder::new().name("afx-health-run".to_owned());
            starters.threads.push(thread.spawn(move || {
                for (check, command) in waiting {
                    // Whoever is told has ended only after this thread.
                    let _ = tell.send((check, start(&command)));
                    let _ = wake.write(1);
                }
            })?);
        }
        Ok(starters)
    }

    pub(in super::super) fn start(&self, check: u64, command: &Command) {
        if let Some(jobs) = &self.jobs {
            // Its receiver is this structure's own.
            let _ = jobs.send((check, command.clone()));
        }
    }

    pub(in super::super) fn started(&self) -> Option<(u64, io::Result<Child>)> {
        self.started.try_recv().ok()
    }
}

impl Drop for Starters {
    fn drop(&mut self) {
        drop(self.jobs.take());
        self.waiting.try_iter().for_each(drop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that starts the programs of health checks had panicked");
            }
        }
        for (_, child) in self.started.try_iter() {
            drop(child.and_then(Run::watch));
        }
    }
}

fn start(command: &Command) -> io::Result<Child> {
    std::process::Command::new(&command.program)
        .args(&command.arguments)
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// What to say of a program that could not be started.
pub(in super::super) fn not_started(command: &Command, error: &io::Error) -> Outcome {
    Outcome::Unable(format!("cannot run {}: {}", command.program.display(), reason(error)))
}

/// A descriptor of a running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Part {
    /// Readable when the program has ended.
    End,
    Stdout,
    Stderr,
}

/// A program that runs. Dropping it kills it and all that it has started in its process group.
pub(in super::super) struct Run {
    child: Child,
    end: OwnedFd,
    stdout: Output<std::process::ChildStdout>,
    stderr: Output<std::process::ChildStderr>,
    /// Its number may be another process's by now.
    is_reaped: bool,
}

impl Run {
    pub(in super::super) fn watch(mut child: Child) -> io::Result<Self> {
        let watched = pidfd(&child)
            .and_then(|end| Ok((end, Output::new(child.stdout.take())?, Output::new(child.stderr.take())?)));
        match watched {
            Ok((end, stdout, stderr)) => Ok(Self { child, end, stdout, stderr, is_reaped: false }),
            Err(error) => {
                kill(&mut child);
                child.wait()?;
                Err(error)
            }
        }
    }

    /// What to wait for: readable, all of them.
    pub(in super::super) fn parts(&self) -> impl Iterator<Item = (Part, BorrowedFd<'_>)> {
        let stdout = self.stdout.pipe.as_ref().map(|pipe| (Part::Stdout, pipe.as_fd()));
        let stderr = self.stderr.pipe.as_ref().map(|pipe| (Part::Stderr, pipe.as_fd()));
        [Some((Part::End, self.end.as_fd())), stdout, stderr].into_iter().flatten()
    }

    /// Goes on with what is readable; says how it went when the program has ended.
    pub(in super::super) fn advance(&mut self, part: Part) -> Option<Outcome> {
        match part {
            Part::Stdout => self.stdout.read(),
            Part::Stderr => self.stderr.read(),
            Part::End => {
                // Before it is reaped: until then its number, which is its group's, is nobody else's.
                kill(&mut self.child);
                let status = self.child.wait();
                self.is_reaped = true;
                self.stdout.read();
                self.stderr.read();
                return Some(match status {
                    Ok(status) if status.success() => Outcome::Good,
                    Ok(status) => Outcome::Bad(self.describe(status)),
                    Err(error) => Outcome::Unable(format!("how it ended is not known: {}", reason(&error))),
                });
            }
        }
        None
    }

    pub(in super::super) fn has_ended(&self) -> bool {
        self.is_reaped
    }

    /// Kills it. That it has ended is to be waited for.
    pub(in super::super) fn kill(&mut self) {
        if !self.is_reaped {
            kill(&mut self.child);
        }
    }

    fn describe(&self, status: ExitStatus) -> String {
        let how = match (status.code(), status.signal().map(Signal::try_from)) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(Ok(signal))) => format!("killed by {signal}"),
            (None, _) => status.to_string(),
        };
        match self.stderr.first_line().or_else(|| self.stdout.first_line()) {
            Some(line) => format!("{how}: {line}"),
            None => how,
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.is_reaped {
            return;
        }
        kill(&mut self.child);
        let mut end = [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
        while poll(&mut end, PollTimeout::from(PATIENCE_MS)) == Err(nix::errno::Errno::EINTR) {}
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            tracing::warn!(process = self.child.id(), "the program of a health check cannot be killed");
        }
    }
}

/// Kills a process that is not reaped yet, and its group.
fn kill(child: &mut Child) {
    // That it has just ended is no error, and any other the next line would have as well.
    let _ = i32::try_from(child.id()).map(|group| killpg(Pid::from_raw(group), Signal::SIGKILL));
    let _ = child.kill();
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(
        rustix::process::Pid::from_child(child),
        rustix::process::PidfdFlags::empty(),
    )?)
}

/// What a program prints.
struct Output<P> {
    /// None when the program has closed it.
    pipe: Option<P>,
    kept: Vec<u8>,
}

impl<P: Read + AsFd> Output<P> {
    fn new(pipe: Option<P>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { pipe, kept: Vec::new() })
    }

    /// Reads once: a program that never stops printing is not to keep everything else.
    fn read(&mut self) {
        let mut bytes = [0; 16 << 10];
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.read(&mut bytes) {
            Ok(0) => self.pipe = None,
            Ok(read) => {
                let room = MOST_KEPT - self.kept.len();
                self.kept.extend_from_slice(&bytes[..read.min(room)]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.pipe = None,
        }
    }

    /// The first line with something in it, fit for a log.
    fn first_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.kept);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().filter(|letter| !letter.is_control()).take(LONGEST_LINE).collect())
    }
}
