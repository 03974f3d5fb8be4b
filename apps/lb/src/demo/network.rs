//! The demo's network: client, balancer and reals on one switch, each real with nginx.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use afx::packet::Protocol;
use afx::stage::balancer::Vip;
use afx_redirect::{Decap, DecapOptions, TunnelEnds};
use afx_testbed::{Host, Link, Switch, Testbed};
use anyhow::{Context as _, Result, anyhow, bail};

use crate::config::{Config, Outcome};

/// The service's address, from a range for documentation (RFC 5737).
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The service's port.
pub(super) const PORT: u16 = 80;

/// A server of the demo.
pub(super) struct Real {
    pub(super) name: &'static str,
    pub(super) address: Ipv4Addr,
}

/// How many servers there are.
pub(super) const REALS_COUNT: usize = 3;
/// The servers.
pub(super) const REALS: [Real; REALS_COUNT] = [
    Real { name: "real1", address: Ipv4Addr::new(10, 0, 0, 11) },
    Real { name: "real2", address: Ipv4Addr::new(10, 0, 0, 12) },
    Real { name: "real3", address: Ipv4Addr::new(10, 0, 0, 13) },
];
/// A weight for each real, in the order of [`REALS`].
pub(super) type Weights = [u32; REALS_COUNT];
/// The weights, unequal so that shares show whether they count.
pub(super) const WEIGHTS: Weights = [100, 200, 100];
/// The real that is drained and brought back, by its place in [`REALS`].
pub(super) const DRAINED: usize = 1;

/// The header in which a server says its name.
pub(super) const NAME_HEADER: &str = "x-real";

/// How long nginx may take to start.
const START_WITHIN: Duration = Duration::from_secs(30);

/// The VIP, as the balancer knows it.
pub(super) fn vip() -> Vip {
    Vip::host(IpAddr::V4(VIP), PORT, Protocol::TCP)
}

/// What every server serves: long enough for several segments, no two lines alike.
pub(super) fn body() -> Vec<u8> {
    let lines: String = (0..256).map(|line| format!("line {line:03} of what real servers say\n")).collect();
    lines.into_bytes()
}

/// The configuration that the balancer is started, and reloaded, with.
pub(super) fn config_text(weights: &Weights) -> String {
    let mut text = format!(
        "\
version = 1

[[port]]
interface = \"eth0\"

[workers]
idle = \"adaptive\"   # this machine has others to run, too

[forwarding]
method = \"ipip\"

[connections]
capacity = 65536
closing = \"1s\"      # short, so that a drained real is seen to lose its connections

[[vip]]
address = \"{VIP}\"
port = {PORT}
protocol = \"tcp\"
"
    );
    for (real, weight) in REALS.iter().zip(weights) {
        text += &format!("\n[[vip.real]]\naddress = \"{}\"\nweight = {weight}\n", real.address);
    }
    text
}

/// The configuration with these weights.
pub(super) fn config(weights: &Weights) -> Result<Config> {
    let Outcome { config, diagnostics } = Config::parse("the demo's configuration", &config_text(weights));
    config.ok_or_else(|| {
        let problems: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
        anyhow!("{}", problems.join("\n"))
    })
}

/// Whether what the testbed itself cannot know of is there.
pub(super) fn check() -> Result<()> {
    match std::process::Command::new("nginx").arg("-v").output() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("nginx was not found in PATH: install the package nginx-light, or nginx")
        }
        Err(error) => Err(error).context("starting nginx"),
    }
}

/// The network, up and serving. Fields in the order in which they are to go.
pub(super) struct Network {
    /// The programs that take the outer header off, attached for as long as these live.
    decaps: Vec<Decap>,
    pub(super) client: Host,
    pub(super) balancer: Host,
    testbed: Testbed,
}

impl Network {
    /// Builds it. What was built before an error is taken down again.
    pub(super) fn build() -> Result<Self> {
        let testbed = Testbed::new("demo")?;
        let switch = testbed.switch("lan")?;
        let client = join(&testbed, &switch, "client", Ipv4Addr::new(10, 0, 0, 1), 1)?;
        let own = Ipv4Addr::new(10, 0, 0, 2);
        // Two queues: two workers, where there are two cores.
        let balancer = join(&testbed, &switch, "afx-lb", own, 2)?;
        client.route(&format!("{VIP}/32"), &own.to_string())?;
        let mut decaps = Vec::new();
        for real in &REALS {
            let host = join(&testbed, &switch, real.name, real.address, 1)?;
            // On lo: nobody is told by ARP that it is here.
            host.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
            host.ip(&format!("address add {VIP}/32 dev lo"))?;
            let index = host.interface_index("eth0")?;
            let ends = TunnelEnds::These(vec![real.address.into()]);
            let options = DecapOptions { ends, ..DecapOptions::default() };
            decaps.push(
                host.run(|| Decap::attach(index, &options))?
                    .with_context(|| format!("decapsulation on {host}"))?,
            );
            serve(&testbed, &host)?;
        }
        Ok(Self { decaps, client, balancer, testbed })
    }

    /// Takes everything down.
    pub(super) fn close(self) -> Result<()> {
        drop(self.decaps);
        Ok(self.testbed.close()?)
    }
}

/// Adds a host to the switch.
fn join(testbed: &Testbed, switch: &Switch, name: &str, address: Ipv4Addr, queues: u32) -> Result<Host> {
    let host = testbed.host(name)?;
    let end = host.end("eth0").address(format!("{address}/24"));
    testbed.link(Link::between(end, switch.port()).queues(queues))?;
    Ok(host)
}

/// Starts nginx on a host.
fn serve(testbed: &Testbed, host: &Host) -> Result<()> {
    let name = host.name();
    let folder = testbed.directory().join(name);
    let prepare = || {
        fs::create_dir_all(folder.join("files"))?;
        fs::write(folder.join("files/index.html"), body())?;
        fs::write(folder.join("nginx.conf"), nginx_config(name))
    };
    prepare().with_context(|| format!("writing nginx's files to {}", folder.display()))?;
    // `-e`: before nginx has read where to log to, it would log to the machine's own file.
    let nginx =
        host.command("nginx").arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "stderr"]).spawn()?;
    // It listens before it starts its workers.
    nginx.wait_for_output("start worker process", START_WITHIN)?;
    Ok(())
}

/// Paths are relative to the folder given by `-p`: nothing is written elsewhere.
fn nginx_config(name: &str) -> String {
    format!(
        "\
daemon off;
user root;  # the files are root's
worker_processes 1;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {PORT};
        root files;
        add_header {NAME_HEADER} {name};
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid_with_and_without_the_drained_real() {
        let config = config(&[100, 0, 7]).expect("it is valid");
        let weights: Vec<_> = config.vips[0].reals.iter().map(|real| real.weight).collect();
        assert_eq!(weights, [100, 0, 7]);
        assert_eq!(config.vips[0].network.addr(), IpAddr::V4(VIP));
    }
}
