//! Long transfers by programs that know nothing of these tests: curl and iperf3.

use std::path::PathBuf;
use std::time::Duration;

use afx_testbed::{Host, Process, Transport};

use super::common::{Net, PATIENCE, VIP4};
use super::nginx;

/// The port that iperf3 takes unless told otherwise.
pub(crate) const IPERF: u16 = 5201;

/// A download of nginx's large file by curl.
pub(crate) struct Curl {
    process: Process,
    file: PathBuf,
}

impl Curl {
    pub(crate) fn start(net: &Net, number: usize) -> Self {
        let file = net.bed.directory().join(format!("download{number}"));
        let curl = net.client.command("curl").args(["--silent", "--show-error", "--fail", "--output"]);
        let curl = curl.arg(&file).arg(format!("http://{VIP4}{}", nginx::LARGE));
        Self { process: curl.spawn().unwrap(), file }
    }

    /// Waits for its end. Every byte was right.
    pub(crate) fn finish(self) {
        let status = self.process.wait_within(PATIENCE).unwrap();
        assert!(status.success(), "curl: {status}: {}", self.process.stderr());
        assert!(std::fs::read(self.file).unwrap() == *nginx::bytes(nginx::LARGE_SIZE), "other bytes");
    }
}

/// Has iperf3 serve on a real.
pub(crate) fn serve(real: &Host) {
    real.command("iperf3").arg("--server").spawn().unwrap();
    real.wait_for_listener(Transport::Tcp, IPERF).unwrap();
}

/// iperf3 on a client: one connection on which it agrees with the server, and another that bytes flow on.
pub(crate) struct Iperf {
    process: Process,
    seconds: u32,
}

impl Iperf {
    /// Sends 1 MB/s for so many seconds: this machine has more to do.
    pub(crate) fn start(client: &Host, server: &str, seconds: u32) -> Self {
        let iperf = client.command("iperf3").args(["--client", server, "--bitrate", "8M", "--json"]);
        Self { process: iperf.args(["--time", &seconds.to_string()]).spawn().unwrap(), seconds }
    }

    /// Waits for its end. It went on all the time, and the server has received what was sent.
    pub(crate) fn finish(self) {
        let status = self.process.wait_within(PATIENCE + Duration::from_secs(self.seconds.into())).unwrap();
        let report = self.process.stdout();
        assert!(status.success(), "iperf3: {status}: {report}");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let bytes = |end: &str| report["end"][end]["bytes"].as_u64().unwrap_or_else(|| panic!("{report}"));
        let (sent, received) = (bytes("sum_sent"), bytes("sum_received"));
        // What is on its way at the end is not received any more: a few of the megabytes sent, one a second.
        assert!(
            received <= sent && received >= 500_000 * u64::from(self.seconds),
            "{received} of {sent} bytes"
        );
    }
}
