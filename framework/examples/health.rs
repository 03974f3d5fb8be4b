//! Checks servers and shows when one goes up or down, until it is interrupted.
//!
//! ```sh
//! cargo run --release --features health --example health -- tcp 127.0.0.1:80 '[::1]:80' --interval 1s
//! cargo run --release --features health --example health -- https 192.0.2.1:443 --host example.org --path /up
//! cargo run --release --features health --example health -- icmp 192.0.2.1
//! cargo run --release --features health --example health -- program 192.0.2.1 --program ./check
//! ```
//!
//! A program gets the server's address in the variable `AFX_REAL`. Up is exit status 0.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afx::control::health::{Check, Checker, Command, Http, Kind, State, Target, Tls};
use clap::{Parser, ValueEnum};

#[derive(Parser)]
struct Arguments {
    /// How to check
    kind: How,
    /// The servers: ADDRESS:PORT, or ADDRESS alone for icmp and program
    #[arg(required = true)]
    servers: Vec<String>,
    /// Time between checks, such as 2s or 500ms
    #[arg(long, default_value = "2s", value_parser = duration)]
    interval: Duration,
    /// How long a check may take
    #[arg(long, default_value = "1s", value_parser = duration)]
    timeout: Duration,
    /// Good checks in a row that bring a server up
    #[arg(long, default_value_t = 2)]
    rise: u32,
    /// Bad checks in a row that take it down
    #[arg(long, default_value_t = 3)]
    fall: u32,
    /// What to ask for by http and https; 200 to 399 is good
    #[arg(long, default_value = "/")]
    path: String,
    /// The header Host, and the name on the certificate; by default the address
    #[arg(long)]
    host: Option<String>,
    /// Do not verify certificates
    #[arg(long)]
    insecure: bool,
    /// What to run
    #[arg(long, default_value = "true")]
    program: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Tcp,
    Http,
    Https,
    Icmp,
    Program,
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..split].parse().map_err(|_| "not a time such as 2s or 500ms")?;
    match &text[split..] {
        "s" => Ok(Duration::from_secs(number)),
        "ms" => Ok(Duration::from_millis(number)),
        _ => Err("not a time such as 2s or 500ms".to_owned()),
    }
}

impl Arguments {
    fn target(&self, server: &str) -> Result<Target<String>, Box<dyn std::error::Error>> {
        let (address, port): (IpAddr, u16) = match self.kind {
            How::Icmp | How::Program => (server.parse()?, 0),
            _ => server.parse::<SocketAddr>().map(|server| (server.ip(), server.port()))?,
        };
        let http = |tls| {
            let (host, path) = (self.host.clone(), self.path.clone());
            Kind::Http(Http { port, tls, host, path, statuses: vec![200..=399] })
        };
        let kind = match self.kind {
            How::Tcp => Kind::Tcp { port },
            How::Http => http(Tls::Off),
            How::Https if self.insecure => http(Tls::Unverified),
            How::Https => http(Tls::Verified),
            How::Icmp => Kind::Icmp,
            How::Program => Kind::Command(Command {
                program: self.program.clone(),
                arguments: Vec::new(),
                environment: vec![("AFX_REAL".to_owned(), address.to_string())],
            }),
        };
        let Self { interval, timeout, rise, fall, .. } = *self;
        let check = Check { interval, timeout, rise, fall, ..Check::new(kind) };
        Ok(Target { key: server.to_owned(), address, check, initially: State::Unknown })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, stop.clone())?;
    }
    let targets: Result<_, _> = arguments.servers.iter().map(|server| arguments.target(server)).collect();
    let checker = Checker::start()?;
    checker.set(targets?)?;
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let Ok(event) = checker.events().recv_timeout(Duration::from_millis(100)) else { continue };
        let at = event.at.saturating_duration_since(start).as_secs_f64();
        let why = event.why.map(|why| format!(": {why}")).unwrap_or_default();
        println!("{at:8.3} s  {}  {} -> {}{why}", event.key, event.from, event.to);
    }
    let states = checker.states();
    let up = states.iter().filter(|status| status.state == State::Up).count();
    let [checks, failed, late] = [
        states.iter().map(|status| status.checks).sum::<u64>(),
        states.iter().map(|status| status.failed).sum(),
        states.iter().map(|status| status.late).sum(),
    ];
    let delay = states.iter().map(|status| status.longest_delay).max().unwrap_or_default();
    println!(
        "{up} of {} up; {checks} checks, {failed} failed, {late} late, by {delay:?} at most",
        states.len()
    );
    Ok(())
}
