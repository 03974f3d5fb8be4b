//! Threads that serve the clients of a listening socket: one each, bounded in number, ended promptly.
//!
//! Whoever connects may be slow, mute or hostile. So every read and write has a deadline, and where all places are
//! taken, a client that has asked for nothing for a while gives way to a new one.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::privileges::{self, Capabilities};

/// How long a client must have been idle to give way to another.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);

/// How long clients have at the end to take the rest of their answers.
const FINISH_WITHIN: Duration = Duration::from_millis(500);

/// How long the end of threads is waited for, where they are in the application's hands.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A pause where the system refuses to accept: it is out of descriptors, say.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What can be listened to.
pub(super) trait Listener: AsFd + Send + 'static {
    /// What comes of it.
    type Stream: Stream;

    /// The next client. The listener does not block.
    fn accept(&self) -> io::Result<Self::Stream>;
}

/// A connected socket. It is shared: one thread reads and writes, another may shut it down.
pub(super) trait Stream: AsFd + Send + Sync + 'static {
    fn read(&self, into: &mut [u8]) -> io::Result<usize>;
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    fn read_timeout(&self, within: Duration) -> io::Result<()>;
    fn write_timeout(&self, within: Duration) -> io::Result<()>;
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
}

macro_rules! sockets {
    ($($listener:ty, $stream:ty;)*) => { $(
        impl Listener for $listener {
            type Stream = $stream;

            fn accept(&self) -> io::Result<$stream> {
                <$listener>::accept(self).map(|(stream, _)| stream)
            }
        }

        impl Stream for $stream {
            fn read(&self, into: &mut [u8]) -> io::Result<usize> {
                (&mut &*self).read(into)
            }

            fn write(&self, bytes: &[u8]) -> io::Result<usize> {
                (&mut &*self).write(bytes)
            }

            fn read_timeout(&self, within: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(within))
            }

            fn write_timeout(&self, within: Duration) -> io::Result<()> {
                self.set_write_timeout(Some(within))
            }

            fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                <$stream>::shutdown(self, how)
            }
        }
    )* };
}

sockets! {
    UnixListener, UnixStream;
    TcpListener, TcpStream;
}

/// What is left until then; an error of kind [`TimedOut`](io::ErrorKind::TimedOut) where that is nothing.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A read that ends by then. A timeout is of kind [`TimedOut`](io::ErrorKind::TimedOut).
pub(super) fn read_by<S: Stream>(stream: &S, into: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.read_timeout(left(deadline)?)?;
        match stream.read(into) {
            Err(error) if is_retried(&error) => {}
            other => return other,
        }
    }
}

/// Writes all of it by then, however small the bites in which it is taken.
pub(super) fn write_by<S: Stream>(stream: &S, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.write_timeout(left(deadline)?)?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_retried(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A timeout shows as [`WouldBlock`](io::ErrorKind::WouldBlock): the deadline decides whether it was one.
fn is_retried(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// How clients are talked with.
pub(super) trait Serve<S>: Send + Sync + 'static {
    /// Talks with a client until all is said. Ends soon after the client's socket is shut down, or
    /// [`Client::stopping`].
    fn serve(&self, client: &Client<S>);

    /// Turns a client away for whom there is no place. Must not block; the stream does not.
    fn refuse(&self, stream: &S);
}

/// A client, as the thread sees it that serves it.
pub(super) struct Client<S> {
    pub(super) stream: S,
    /// Since when it has asked for nothing; None while it is being answered.
    idle_since: Mutex<Option<Instant>>,
    stopping: Receiver<()>,
}

impl<S> Client<S> {
    /// Says that the client is waited for.
    pub(super) fn idle(&self) {
        *lock(&self.idle_since) = Some(Instant::now());
    }

    /// Says that it is the client who waits.
    pub(super) fn busy(&self) {
        *lock(&self.idle_since) = None;
    }

    /// Disconnected when threads are to end.
    pub(super) fn stopping(&self) -> &Receiver<()> {
        &self.stopping
    }
}

/// The threads behind a listener. They end when this is dropped.
pub(super) struct Threads<S: Stream> {
    clients: Arc<Clients<S>>,
    /// Closing it wakes the accepting thread, which ends.
    wake: Option<io::PipeWriter>,
    acceptor: Option<JoinHandle<()>>,
    stop: Option<Sender<()>>,
}

struct Clients<S> {
    places: usize,
    served: Mutex<BTreeMap<u64, Arc<Client<S>>>>,
    one_less: Condvar,
}

impl<S: Stream> Threads<S> {
    /// Serves the clients of a listener on threads named so, that many at a time.
    pub(super) fn start<L>(
        name: &'static str,
        listener: L,
        places: usize,
        serve: impl Serve<S>,
    ) -> io::Result<Self>
    where
        L: Listener<Stream = S>,
    {
        let (woken, wake) = io::pipe()?;
        let (stop, stopping) = bounded(0);
        let clients = Arc::new(Clients { places, served: Mutex::default(), one_less: Condvar::new() });
        let acceptor =
            Acceptor { name, listener, woken, stopping, clients: clients.clone(), serve: Arc::new(serve) };
        let acceptor = std::thread::Builder::new().name(name.to_owned()).spawn(move || acceptor.run())?;
        Ok(Self { clients, wake: Some(wake), acceptor: Some(acceptor), stop: Some(stop) })
    }
}

impl<S: Stream> Drop for Threads<S> {
    fn drop(&mut self) {
        drop(self.wake.take());
        if self.acceptor.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread that accepts clients had panicked");
        }
        drop(self.stop.take());
        // First those who wait for a request. Those who write may finish, for a moment.
        self.clients.shut_down(Shutdown::Read);
        if !self.clients.all_ended(FINISH_WITHIN) {
            self.clients.shut_down(Shutdown::Both);
            if !self.clients.all_ended(END_WITHIN) {
                tracing::error!("a thread that serves a client does not end");
            }
        }
    }
}

impl<S: Stream> Clients<S> {
    fn shut_down(&self, how: Shutdown) {
        for client in lock(&self.served).values() {
            // It fails where the client has gone.
            let _ = client.stream.shutdown(how);
        }
    }

    fn all_ended(&self, within: Duration) -> bool {
        let (served, _) = self
            .one_less
            .wait_timeout_while(lock(&self.served), within, |served| !served.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        served.is_empty()
    }

    /// Makes place for one more. False where there is none: all others are being answered.
    fn make_place(&self) -> bool {
        let mut served = lock(&self.served);
        if served.len() < self.places {
            return true;
        }
        let idle = served.iter().filter_map(|(number, client)| Some((*number, (*lock(&client.idle_since))?)));
        let longest = idle.min_by_key(|(_, since)| *since);
        let Some((number, _)) = longest.filter(|(_, since)| since.elapsed() >= GIVES_WAY_AFTER) else {
            return false;
        };
        if let Some(client) = served.remove(&number) {
            let _ = client.stream.shutdown(Shutdown::Both);
        }
        true
    }
}

/// What the accepting thread has.
struct Acceptor<L: Listener, T> {
    name: &'static str,
    listener: L,
    woken: io::PipeReader,
    stopping: Receiver<()>,
    clients: Arc<Clients<L::Stream>>,
    serve: Arc<T>,
}

impl<L: Listener, T: Serve<L::Stream>> Acceptor<L, T> {
    fn run(self) {
        // Nor does any client's thread need one: each begins with this one's.
        if let Err(error) = privileges::keep(Capabilities::NONE) {
            tracing::debug!("capabilities cannot be given up: {error}");
        }
        let mut refused_by_system = false;
        for number in 0.. {
            match self.next() {
                Ok(Some(stream)) => {
                    refused_by_system = false;
                    self.welcome(number, stream);
                }
                Ok(None) => return,
                Err(error) => {
                    if !std::mem::replace(&mut refused_by_system, true) {
                        tracing::warn!("clients cannot be accepted now: {error}");
                    }
                    if self.told_to_stop(ACCEPT_AGAIN_AFTER) {
                        return;
                    }
                }
            }
        }
    }

    /// The next client; None when told to stop.
    fn next(&self) -> io::Result<Option<L::Stream>> {
        loop {
            let mut both = [
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut both, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if both[1].any().unwrap_or(true) {
                return Ok(None);
            }
            match self.listener.accept() {
                Ok(stream) => return Ok(Some(stream)),
                // The client has gone again.
                Err(error) if is_retried(&error) || error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn told_to_stop(&self, within: Duration) -> bool {
        wait(self.woken.as_fd(), PollFlags::POLLIN, within)
    }

    fn welcome(&self, number: u64, stream: L::Stream) {
        if !self.clients.make_place() {
            self.refuse(&stream);
            return;
        }
        let client = Arc::new(Client {
            stream,
            idle_since: Mutex::new(Some(Instant::now())),
            stopping: self.stopping.clone(),
        });
        lock(&self.clients.served).insert(number, client.clone());
        let (clients, serve) = (self.clients.clone(), self.serve.clone());
        let thread = std::thread::Builder::new().name(format!("{}-client", self.name));
        let spawned = thread.spawn({
            let client = client.clone();
            move || {
                // Its place is free again even where serving it has panicked.
                let _place = Place { number, clients };
                serve.serve(&client);
            }
        });
        if spawned.is_err() {
            lock(&self.clients.served).remove(&number);
            self.refuse(&client.stream);
        }
    }

    fn refuse(&self, stream: &L::Stream) {
        // As good as not blocking: a fresh socket's buffer takes a sentence.
        if stream.write_timeout(Duration::from_millis(1)).is_ok() {
            self.serve.refuse(stream);
        }
    }
}

/// A client's place, as long as it is taken.
struct Place<S> {
    number: u64,
    clients: Arc<Clients<S>>,
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        lock(&self.clients.served).remove(&self.number);
        self.clients.one_less.notify_all();
    }
}

/// Waits until a descriptor is ready or hung up; false where it is neither within that time.
pub(super) fn wait(descriptor: BorrowedFd<'_>, events: PollFlags, within: Duration) -> bool {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    let mut descriptors = [PollFd::new(descriptor, events)];
    // An error will show again when the descriptor is used.
    poll(&mut descriptors, timeout).is_ok_and(|ready| ready > 0)
}

/// Locks even after a panic elsewhere: the values are replaced as a whole, never half.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
