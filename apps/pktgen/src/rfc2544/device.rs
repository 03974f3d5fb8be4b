//! The real trial: frames leave on one interface of this machine, go through the device, and come in on another.
//!
//! Sender and receiver are in one process and read one clock. Each has a runtime of its own, so that neither waits for
//! the other; where both are the same interface, one runtime does both.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afx::control::interface::Interface;
use afx::control::resolver::{Resolution, Resolver};
use afx::packet::MacAddress;
use afx::port::{ModeWanted, Protocol, Rule, Steering, XdpPort};
use afx::{Idle, Running, Runtime, RuntimeBuilder};
use anyhow::{Context as _, Result, bail};

use super::announce::announce;
use super::counters::Counters;
use super::packets::{Ends, PORT, Packets};
use super::stage::{Desk, Order, Role, Sending, Tester};
use super::trial::{Amount, Frames, Interfaces, Moment, Outcome, Request, Stop, Trial};
use crate::receive::source::Source;

/// Where frames go in and come out.
#[derive(Clone, Debug)]
pub(super) struct Wiring {
    /// Interfaces of this machine, perhaps the same.
    pub(super) send: String,
    pub(super) receive: String,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) next: NextHop,
    pub(super) mode: ModeWanted,
    pub(super) flows: u32,
    /// Of the sender's and the receiver's worker; two of their own unless said, where there are as many.
    pub(super) cores: Option<(usize, usize)>,
    /// How long stragglers are waited for.
    pub(super) settle: Duration,
    /// How long the device is left alone between two trials.
    pub(super) pause: Duration,
    /// Bytes of the longest packet.
    pub(super) longest: usize,
}

/// Whose MAC address the frames are sent to.
#[derive(Clone, Copy, Debug)]
pub(super) enum NextHop {
    Mac(MacAddress),
    /// The one that the kernel's neighbour of this address has.
    Via(IpAddr),
    /// The receiving interface's: what is between is a switch or a cable.
    Receiver,
}

/// A device under test, wired up.
pub(super) struct Device {
    wiring: Wiring,
    ends: Ends,
    /// The receiving interface's.
    receiver_mac: MacAddress,
    sender: Running,
    /// None where the sender receives, too.
    receiver: Option<Running>,
    desk: Desk,
    trial: u16,
    interrupted: Arc<AtomicBool>,
    idle_since: Option<Instant>,
}

/// How often a trial looks how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long the workers may take to hear an order, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(30);

impl Device {
    /// Opens both interfaces. A signal that sets `interrupted` ends a trial.
    ///
    /// # Errors
    /// Where an interface cannot be opened, or the next hop's MAC address is not known.
    pub(super) fn open(wiring: Wiring, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let find = |name: &str| Interface::find(name).map_err(|error| usage(error.to_string()));
        let (out, back) = (find(&wiring.send)?, find(&wiring.receive)?);
        for (name, interface) in [(&wiring.send, &out), (&wiring.receive, &back)] {
            let longest = wiring.longest - 14;
            if longest > interface.mtu as usize {
                let frame = longest + 18;
                return Err(usage(format!(
                    "frames of {frame} bytes are too long for {name}, whose MTU is {}: at most {} bytes, or raise it \
                     by `ip link set {name} mtu {longest}`",
                    interface.mtu,
                    interface.mtu + 18
                )));
            }
        }
        let to = match wiring.next {
            NextHop::Mac(mac) => mac,
            NextHop::Receiver => back.mac,
            NextHop::Via(address) => resolve(address, &wiring.send, out.index)?,
        };
        let ends = Ends {
            macs: (out.mac, to),
            source: SocketAddr::new(wiring.source, 0),
            destination: SocketAddr::new(wiring.destination, PORT),
        };
        let desk = Desk::default();
        let is_one = wiring.send == wiring.receive;
        let mut rules = vec![Rule::new(wiring.destination, Some(PORT), Some(Protocol::UDP))?];
        if is_one {
            // A device that sends packets back may have their addresses change places.
            rules.push(Rule::new(wiring.source, None, Some(Protocol::UDP))?);
        }
        let receiving = XdpPort::new(&wiring.receive, Steering::Match(rules)).mode(wiring.mode);
        let start = |builder: RuntimeBuilder, sends: Option<String>, receives| {
            let (desk, flows) = (desk.clone(), wiring.flows);
            let builder = if wiring.longest > 2048 - 256 { builder.frame_size(4096) } else { builder };
            builder
                .pipeline(move |build| {
                    Tester::new(build, Role { sends: sends.as_deref(), receives }, flows, &desk)
                })
                .start()
        };
        let builder = |core: Option<usize>| match core {
            Some(core) => Runtime::builder().cores([core]),
            None => Runtime::builder(),
        };
        let sending = |builder: RuntimeBuilder| builder.idle(Idle::Busy).tick(Duration::ZERO);
        let (first, second) = wiring.cores.or_else(two_cores).unzip();
        let (sender, receiver) = if is_one {
            (start(sending(builder(first)).port(receiving), Some(wiring.send.clone()), true)?, None)
        } else {
            let receiver = start(builder(second).port(receiving), None, true)?;
            let port = XdpPort::send_only(&wiring.send).mode(wiring.mode);
            (start(sending(builder(first)).port(port), Some(wiring.send.clone()), false)?, Some(receiver))
        };
        let receiver_mac = back.mac;
        let trial = 0;
        Ok(Self { wiring, ends, receiver_mac, sender, receiver, desk, trial, interrupted, idle_since: None })
    }

    /// The shortest frame that can be tested.
    pub(super) fn shortest(ends: (IpAddr, IpAddr)) -> usize {
        let [source, destination] = [ends.0, ends.1].map(|address| SocketAddr::new(address, 0));
        Ends { macs: (MacAddress([0; 6]), MacAddress([0; 6])), source, destination }.shortest()
    }

    /// Which modes the interfaces are in: of the sender, and of the receiver.
    pub(super) fn modes(&self) -> (String, String) {
        let mode = |running| Source::describe(running).1;
        (mode(&self.sender), mode(self.receiver.as_ref().unwrap_or(&self.sender)))
    }

    /// Tells the device who is where, and waits until packets come through.
    ///
    /// # Errors
    /// [`Stop`]: none came.
    pub(super) fn learn(&mut self, frames: &Frames) -> Result<(), Stop> {
        const TRIES: u32 = 5;
        for _ in 0..TRIES {
            let request = Request { frames, rate: 100.0, amount: Amount::Frames(20) };
            if self.run(&request, &mut |_| {})?.received > 0 {
                return Ok(());
            }
        }
        let Wiring { send, receive, destination, .. } = &self.wiring;
        Err(Stop::Failed(anyhow::anyhow!(
            "none of {} packets that were sent on {send} came back on {receive}: is the device up, does it forward \
             {destination} there, and does it take frames for {}? (--to-mac, --via, --destination)",
            TRIES * 20,
            self.ends.macs.1
        )))
    }

    /// Closes the interfaces. Whether every frame is accounted for, and every packet that was counted as sent has been
    /// taken by the interface.
    ///
    /// # Errors
    /// Where a worker had failed.
    pub(super) fn close(self) -> Result<bool> {
        let sent = self.sender.stop().context("sending has failed")?;
        let mut is_right = sent.balanced() && sent.dropped("tx_full") == 0 && sent.dropped("tx_refused") == 0;
        if let Some(receiver) = self.receiver {
            is_right &= receiver.stop().context("receiving has failed")?.balanced();
        }
        Ok(is_right)
    }

    /// Gives an order to all workers, and waits until they have it.
    fn order(&self, order: Order) -> Result<()> {
        let order = Arc::new(order);
        for running in self.receiver.iter().chain([&self.sender]) {
            let number = running.publish(order.clone())?;
            let until = Instant::now() + PATIENCE;
            while !running.configured(number) {
                if running.ended() {
                    running.join().context("a worker has ended")?;
                    bail!("the workers have ended though nobody told them to");
                }
                if Instant::now() > until {
                    bail!("the workers do not answer");
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(())
    }

    fn counters(&self) -> Option<(Counters, Counters)> {
        let read = |interface: &str| Counters::read(interface).ok();
        Some((read(&self.wiring.send)?, read(&self.wiring.receive)?))
    }

    fn check_interrupted(&self) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Stop::Interrupted) } else { Ok(()) }
    }

    /// Sleeps until an instant, or somebody wants it to end.
    fn wait_until(&self, until: Instant) -> Result<(), Stop> {
        while Instant::now() < until {
            self.check_interrupted()?;
            std::thread::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())));
        }
        self.check_interrupted()
    }

    /// Sends, and waits for what comes.
    fn send(&self, request: &Request<'_>, watch: &mut dyn FnMut(Moment)) -> Result<(), Stop> {
        let packets = Packets::new(&self.ends, request.frames);
        let (trial, flows) = (self.trial, self.wiring.flows);
        let sending = Sending { trial, packets, rate: request.rate, amount: request.amount, flows };
        self.order(Order::Send(Arc::new(sending)))?;
        // Where frames are counted, and not time, an interface that sends no more would never be done.
        let deadline = Instant::now() + request.time() + PATIENCE;
        let mut moment = |sent, settling| {
            watch(Moment { sent, received: self.desk.received(), settling });
        };
        let sent = loop {
            let sent = self.desk.sent();
            if sent.done {
                break sent;
            }
            if Instant::now() > deadline {
                let (packets, late) = (sent.packets, PATIENCE.as_secs());
                return Err(Stop::Failed(anyhow::anyhow!(
                    "{} has sent {packets} packets of the trial and is not done {late} s after the time for it: is its link \
                     up?",
                    self.wiring.send
                )));
            }
            moment(sent.packets, false);
            self.wait_until(Instant::now() + LOOK_EVERY)?;
            if self.sender.ended() {
                self.sender.join().context("sending has failed")?;
                return Err(Stop::Failed(anyhow::anyhow!("the sender has ended though nobody told it to")));
            }
        };
        let until = Instant::now() + self.wiring.settle;
        // Once all have come there is nothing to wait for; copies could hide one that is missing.
        while Instant::now() < until {
            if self.desk.received() >= sent.packets {
                self.order(Order::Collect)?;
                if self.desk.summary().distinct >= sent.packets {
                    return Ok(());
                }
            }
            moment(sent.packets, true);
            self.wait_until(Instant::now() + LOOK_EVERY)?;
        }
        self.order(Order::Collect)?;
        Ok(())
    }
}

impl Trial for Device {
    fn run(&mut self, request: &Request<'_>, watch: &mut dyn FnMut(Moment)) -> Result<Outcome, Stop> {
        self.check_interrupted()?;
        if let Some(since) = self.idle_since {
            self.wait_until(since + self.wiring.pause)?;
        }
        let tell = |interface: &str, mac, address| {
            announce(interface, mac, address)
                .with_context(|| format!("cannot send learning frames on {interface}"))
        };
        tell(&self.wiring.send, self.ends.macs.0, self.wiring.source)?;
        tell(&self.wiring.receive, self.receiver_mac, self.wiring.destination)?;
        self.trial = self.trial.wrapping_add(1);
        self.desk.clear();
        self.order(Order::Begin(self.trial))?;
        let before = self.counters();
        let sent = self.send(request, watch);
        if sent.is_err() {
            // What has failed says more than that nobody could be told to stop.
            let _ = self.order(Order::Cease);
        }
        sent?;
        let interfaces = before.zip(self.counters()).map(|(before, after)| Interfaces {
            // A driver that was reset counts from zero again.
            sender_sent: after.0.sent.saturating_sub(before.0.sent),
            sender_dropped: after.0.send_dropped.saturating_sub(before.0.send_dropped),
            receiver_received: after.1.received.saturating_sub(before.1.received),
            receiver_dropped: after.1.receive_dropped.saturating_sub(before.1.receive_dropped),
        });
        self.idle_since = Some(Instant::now());
        let (sent, summary) = (self.desk.sent(), self.desk.summary());
        Ok(Outcome {
            offered: sent.packets,
            sent_rate: sent.rate,
            received: summary.distinct,
            reordered: summary.reordered,
            duplicates: summary.duplicates,
            latency: summary.latency,
            interfaces,
        })
    }
}

/// Two of the cores that this process may run on, the last ones: interrupts and other programs are more often on the
/// first. The sender never sleeps, and a receiver on its core would wait for it.
fn two_cores() -> Option<(usize, usize)> {
    let cores = core_affinity::get_core_ids()?;
    let mut last = cores.iter().rev().map(|core| core.id);
    Some((last.next()?, last.next()?))
}

/// The MAC address of a neighbour on an interface, asked for by the kernel.
fn resolve(address: IpAddr, interface: &str, index: u32) -> Result<MacAddress> {
    const WITHIN: Duration = Duration::from_secs(5);
    let resolver = Resolver::start()?;
    resolver.watch([address]);
    let until = Instant::now() + WITHIN;
    let mut why = "the kernel says nothing of it".to_owned();
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match resolver.snapshot().get(&address) {
            Some(Resolution::Resolved(hop)) if hop.interface == index => {
                return Ok(MacAddress(hop.destination_mac));
            }
            Some(Resolution::Resolved(_)) => {
                return Err(usage(format!(
                    "--via {address}: the kernel reaches it by another interface than {interface}"
                )));
            }
            Some(Resolution::Unresolved(reason)) => why = reason.to_string(),
            None => {}
        }
        // A message or not: the snapshot tells.
        let _ = resolver.changes().recv_timeout(left.min(Duration::from_millis(100)));
    }
    bail!("--via {address}: {why}; say the device's MAC address by --to-mac")
}

/// An error in what was asked for.
pub(super) fn usage(what: String) -> anyhow::Error {
    afx::Error::Config { what }.into()
}
