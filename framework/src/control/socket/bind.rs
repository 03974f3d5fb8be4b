//! How a socket comes to its path: never in the place of another that is in use, never open to others.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};

use super::SocketError;

/// How long another process may hold the folder's lock, which it needs for an instant.
const LOCK_WITHIN: Duration = Duration::from_secs(2);

/// How long a process that does not accept may keep one waiting who connects.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket's file. Removed when dropped, if it is still that socket's.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The inode cannot have become another file's: the socket keeps it while it is open.
        let own = |file: fs::Metadata| (file.dev(), file.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(own)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("the socket {} cannot be removed: {error}", self.path.display());
        }
    }
}

/// Makes a socket at a path, in the place of one that nobody answers at, and listens.
pub(super) fn listen_at(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let other = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            SocketError::Permission { path: path.to_owned(), source }
        }
        _ => SocketError::Other { path: path.to_owned(), source },
    };
    let address = UnixAddr::new(path).map_err(|_| SocketError::TooLong { path: path.to_owned() })?;
    // Between looking who is there and taking the path nobody else may do the same.
    let _lock = lock_folder(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            SocketError::NoFolder { folder: folder_of(path).to_owned() }
        }
        _ => other(error),
    })?;
    clear(path).map_err(|error| error.unwrap_or_else(other))?;

    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made =
        socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(|errno| other(errno.into()))?;
    // Before it is bound: the file gets the mode that the socket has by then (`unix_bind_bsd` in the kernel's
    // net/unix/af_unix.c), so it is at no time open to others, and the process's umask need not change.
    fchmod(made.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| other(errno.into()))?;
    bind(made.as_raw_fd(), &address).map_err(|errno| match errno {
        Errno::EADDRINUSE => SocketError::Taken { path: path.to_owned() },
        errno => other(errno.into()),
    })?;
    let file = fs::symlink_metadata(path).map_err(other)?;
    let file = SocketFile { path: path.to_owned(), device: file.dev(), inode: file.ino() };
    let backlog = Backlog::new(BACKLOG).map_err(|errno| other(errno.into()))?;
    listen(&made, backlog).map_err(|errno| other(errno.into()))?;
    Ok((UnixListener::from(made), file))
}

/// Removes a socket that nobody answers at.
fn clear(path: &Path) -> Result<(), Result<SocketError, io::Error>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Err(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(Ok(SocketError::NotASocket { path: path.to_owned() }));
        }
        Ok(_) => {}
    }
    match connect_to(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(
                "the socket {} was left behind by a process that has ended: replaced",
                path.display()
            );
            fs::remove_file(path).map_err(Err)
        }
        // Whoever it was has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A process that accepts nothing now is there all the same.
        Ok(_) => Err(Ok(SocketError::Taken { path: path.to_owned() })),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(Ok(SocketError::Taken { path: path.to_owned() }))
        }
        Err(error) => Err(Err(error)),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Locks the folder of a path against others that lock it.
fn lock_folder(path: &Path) -> io::Result<Flock<File>> {
    let deadline = Instant::now() + LOCK_WITHIN;
    let mut folder = File::open(folder_of(path))?;
    if !folder.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    loop {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => folder = back,
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection to a socket. Of kind [`TimedOut`](io::ErrorKind::TimedOut) where too many wait already for a process
/// that does not accept.
pub(super) fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let deadline = Instant::now() + CONNECT_WITHIN;
    loop {
        // A blocking socket would wait for a place in the queue for ever (unix(7), EAGAIN).
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        match connect(made.as_raw_fd(), &address) {
            Ok(()) => {
                let stream = UnixStream::from(made);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
