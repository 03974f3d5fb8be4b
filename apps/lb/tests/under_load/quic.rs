//! QUIC servers on reals, whose connection ids say which real they are on, and clients that move about.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use afx_testbed::{Host, wait_for};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{ClientConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig};
use quinn::{RecvStream, SendStream, ServerConfig, TokioRuntime, TransportConfig};

use super::common::PATIENCE;

/// The name that the certificate is for.
const NAME: &str = "vip.test";
/// Bytes of an answer, and how long a client waits before it asks again.
const ANSWER: usize = 20_000;
const PAUSE: Duration = Duration::from_millis(50);

/// A key and the certificate that clients trust, the same for all servers of a VIP.
pub(crate) struct Identity {
    key: PrivatePkcs8KeyDer<'static>,
    certificate: CertificateDer<'static>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        Self { key: made.signing_key.serialize_der().into(), certificate: made.cert.into() }
    }

    fn server(&self) -> ServerConfig {
        let key = self.key.clone_key().into();
        ServerConfig::with_single_cert(vec![self.certificate.clone()], key).unwrap()
    }

    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(PATIENCE.try_into().unwrap()));
        config.transport_config(Arc::new(transport));
        config
    }
}

/// Connection ids of 12 bytes: the first says how to read them (version 2), 3 carry the server's id, the rest is random.
struct Ids {
    server: u32,
    random: RandomState,
    made: u64,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made += 1;
        let random = self.random.hash_one(self.made).to_be_bytes();
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.server.to_be_bytes());
        id[0] = 2 << 6 | random[0] & 0x3f;
        id[4..].copy_from_slice(&random);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        12
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A server on a real: answers each stream with its number and bytes that follow from the question.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(real: &Host, number: u8, id: u32, address: SocketAddr, identity: &Identity) -> Self {
        let config = identity.server();
        let socket = real.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut ids = EndpointConfig::default();
                ids.cid_generator(move || Box::new(Ids { server: id, random: RandomState::new(), made: 0 }));
                let endpoint = Endpoint::new(ids, Some(config), socket, Arc::new(TokioRuntime)).unwrap();
                while !stopping.load(Ordering::Relaxed) {
                    // Woken now and then, to see whether to stop.
                    let Ok(incoming) = tokio::time::timeout(PAUSE, endpoint.accept()).await else { continue };
                    tokio::spawn(serve(incoming.unwrap(), number));
                }
            });
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

async fn serve(incoming: quinn::Incoming, number: u8) {
    let Ok(connection) = incoming.await else { return };
    while let Ok((send, receive)) = connection.accept_bi().await {
        // A client that goes in between is the client's to explain.
        tokio::spawn(async move { answer(send, receive, number).await });
    }
}

async fn answer(
    mut send: SendStream,
    mut receive: RecvStream,
    number: u8,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut question = [0; 8];
    receive.read_exact(&mut question).await?;
    send.write_all(&[number]).await?;
    send.write_all(&expected(u64::from_be_bytes(question))).await?;
    send.finish()?;
    Ok(())
}

/// What is answered to a question: other bytes to each.
fn expected(question: u64) -> Vec<u8> {
    (0..ANSWER as u64)
        .map(|place| ((place ^ question << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// A client with one connection, on which it asks again and again.
pub(crate) struct Client {
    real: u8,
    shared: Arc<Shared>,
    thread: JoinHandle<Result<(), String>>,
}

#[derive(Default)]
struct Shared {
    enough: AtomicBool,
    answers: AtomicU64,
    /// How often it was told to move to another port, and has done so.
    moves_wanted: AtomicU64,
    moves: AtomicU64,
}

impl Client {
    /// Connects, and waits for the first answer.
    pub(crate) fn start(client: &Host, server: SocketAddr, identity: &Identity) -> Self {
        let config = identity.client();
        let shared = Arc::new(Shared::default());
        let its = shared.clone();
        let (first, real) = std::sync::mpsc::channel();
        let work = move || {
            runtime().block_on(async { ask(server, config, &its, &first).await.map_err(|e| e.to_string()) })
        };
        let thread = client.run(move || std::thread::spawn(work)).unwrap();
        match real.recv_timeout(PATIENCE) {
            Ok(real) => Self { real, shared, thread },
            Err(_) if thread.is_finished() => panic!("no QUIC connection: {:?}", thread.join().unwrap()),
            Err(error) => panic!("no QUIC connection: {error}"),
        }
    }

    /// Waits until so many answers more have come.
    pub(crate) fn advance(&self, answers: u64) {
        let target = self.answers() + answers;
        let what = format!("the QUIC connection to real {} to go on", self.real);
        wait_for(&what, PATIENCE, || self.answers() >= target || self.thread.is_finished()).unwrap();
        assert!(!self.thread.is_finished(), "it has ended early: `finish` says why");
    }

    pub(crate) fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Has it go on from another port, as when a NAT on the way forgets it; waits until it does.
    pub(crate) fn change_port(&self) {
        let wanted = self.shared.moves_wanted.fetch_add(1, Ordering::Relaxed) + 1;
        wait_for("the QUIC client to change its port", PATIENCE, || {
            self.shared.moves.load(Ordering::Relaxed) == wanted || self.thread.is_finished()
        })
        .unwrap();
    }

    /// Ends it. Every answer was right, and came from the same real by the same connection.
    pub(crate) fn finish(self) {
        self.shared.enough.store(true, Ordering::Relaxed);
        let ended = self.thread.join().unwrap();
        ended.unwrap_or_else(|error| panic!("QUIC from real {}: {error}", self.real));
    }
}

async fn ask(
    server: SocketAddr,
    config: ClientConfig,
    shared: &Shared,
    first: &std::sync::mpsc::Sender<u8>,
) -> Result<(), Box<dyn std::error::Error>> {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let mut endpoint = Endpoint::client(any)?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(server, NAME)?.await?;
    let mut reals = BTreeSet::new();
    while !shared.enough.load(Ordering::Relaxed) {
        let moves = shared.moves.load(Ordering::Relaxed);
        if moves < shared.moves_wanted.load(Ordering::Relaxed) {
            endpoint.rebind(UdpSocket::bind(any)?)?;
            shared.moves.store(moves + 1, Ordering::Relaxed);
        }
        let number = shared.answers.load(Ordering::Relaxed);
        let asked = tokio::time::timeout(PATIENCE, exchange(&connection, number)).await;
        let real = asked.map_err(|_| format!("no answer to question {number}"))??;
        let _ = first.send(real);
        reals.insert(real);
        if reals.len() > 1 {
            return Err(format!("it is served by the reals {reals:?}").into());
        }
        shared.answers.store(number + 1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    connection.close(0_u32.into(), b"enough");
    endpoint.wait_idle().await;
    Ok(())
}

/// One question and its answer, checked. Returns who gave it.
async fn exchange(connection: &Connection, number: u64) -> Result<u8, Box<dyn std::error::Error>> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&number.to_be_bytes()).await?;
    send.finish()?;
    let answer = receive.read_to_end(ANSWER + 1).await?;
    match answer.split_first() {
        Some((real, bytes)) if bytes == expected(number) => Ok(*real),
        _ => Err(format!("the answer to question {number} is wrong").into()),
    }
}
