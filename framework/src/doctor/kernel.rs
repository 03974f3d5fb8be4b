//! The kernel: what its version allows, what it was built with, and what it does against flaws of processors.

use std::io;

use afx_redirect::{LOWEST_KERNEL, kernel_version};

use super::rights::{self, NET_RAW};
use super::{Finding, Remedy, Topic, Verdict};
use crate::machine::Files;

const TOPIC: Topic = Topic::Kernel;

/// A kernel's release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    /// As `uname -r` says it.
    pub(super) text: String,
    /// Version and patch level, where the text begins with such.
    version: Option<(u32, u32)>,
}

impl Release {
    pub(super) fn of(files: &Files) -> Self {
        let text = files.read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "not known".into());
        let version = kernel_version(&text);
        Self { text, version }
    }
}

/// What later versions add.
const ADDED: [((u32, u32), &str); 4] = [
    ((6, 3), "drivers say what their XDP can do (6.3)"),
    ((6, 4), "rings are mapped, which saves some 5 ns a packet (6.4)"),
    ((6, 6), "packets longer than a frame are taken (6.6)"),
    ((6, 17), "more than 32 packets are sent by a system call in copy mode (6.17)"),
];

/// `af_xdp` is what came of opening a socket, `answered` of making the system call of BPF.
pub(super) fn examine(
    files: &Files,
    release: &Release,
    af_xdp: io::Result<()>,
    answered: io::Result<()>,
) -> Vec<Finding> {
    let mut findings = vec![version(release), sockets(files, af_xdp), bpf(answered)];
    findings.extend(compiler(files));
    findings.push(mitigations(files));
    findings
}

fn version(release: &Release) -> Finding {
    const NAME: &str = "version";
    let text = &release.text;
    let Some(version) = release.version else {
        return Finding::better(TOPIC, NAME, text, "afx needs Linux 6.1 or later");
    };
    if version < LOWEST_KERNEL {
        let why = "afx needs Linux 6.1 or later: install a newer kernel, from the distribution's backports for instance";
        return Finding::fails(TOPIC, NAME, text, why);
    }
    let missing: Vec<_> =
        ADDED.iter().filter(|(since, _)| version < *since).map(|(_, added)| *added).collect();
    if missing.is_empty() {
        return Finding::good(TOPIC, NAME, format!("{text}: it has all that afx makes use of"));
    }
    Finding::better(TOPIC, NAME, text, format!("with a newer kernel {}", missing.join("; ")))
}

/// What keeps a process from what the kernel has.
const POLICY: &str = "the service or container that starts it has to allow it";

fn sockets(files: &Files, opened: io::Result<()>) -> Finding {
    const NAME: &str = "AF_XDP";
    let Err(error) = opened else { return Finding::good(TOPIC, NAME, "a socket can be opened") };
    // Protocols are listed by a line each.
    let protocols = files.read("/proc/thread-self/net/protocols").unwrap_or_default();
    let is_there = protocols.lines().any(|line| line.starts_with("XDP "));
    match error.raw_os_error() {
        // The kernel looks for the family first, and for the right after that.
        Some(libc::EPERM) if !rights::holds(files, NET_RAW) => Finding::good(
            TOPIC,
            NAME,
            "it is in the kernel; this process may not open a socket, see CAP_NET_RAW",
        ),
        Some(libc::EAFNOSUPPORT) if !is_there => Finding::fails(
            TOPIC,
            NAME,
            "it is not in the kernel",
            "afx is made of it: take a kernel that was built with CONFIG_XDP_SOCKETS",
        ),
        Some(libc::EPERM | libc::EACCES | libc::EAFNOSUPPORT) => {
            let why = format!("{POLICY} (RestrictAddressFamilies=, a seccomp profile): {error}");
            Finding::fails(TOPIC, NAME, "it is kept from this process", why)
        }
        _ => Finding::fails(TOPIC, NAME, "no socket can be opened", error.to_string()),
    }
}

fn bpf(answered: io::Result<()>) -> Finding {
    const NAME: &str = "BPF";
    match answered {
        Ok(()) => Finding::good(TOPIC, NAME, "programs can be loaded, with the rights for it"),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Finding::fails(
            TOPIC,
            NAME,
            "it is not in the kernel",
            "the redirect program cannot be loaded: take a kernel that was built with CONFIG_BPF_SYSCALL",
        ),
        Err(error) => {
            let why = format!(
                "the redirect program cannot be loaded: {POLICY} (SystemCallFilter=, a seccomp profile): {error}"
            );
            Finding::fails(TOPIC, NAME, "it is kept from this process", why)
        }
    }
}

/// Nothing where it cannot be seen: network namespaces other than the first do not show it.
fn compiler(files: &Files) -> Option<Finding> {
    const NAME: &str = "BPF compiler";
    Some(match files.number("/proc/sys/net/core/bpf_jit_enable")? {
        0 => Finding::better(TOPIC, NAME, "off", "the redirect program is interpreted, for every packet")
            .mend(Remedy::command("sysctl net.core.bpf_jit_enable=1")),
        _ => Finding::good(TOPIC, NAME, "on"),
    })
}

/// Those that make every system call or indirect call dearer: the file's name, words in it, and what that is.
const DEAR: [(&str, &str, &str); 7] = [
    ("meltdown", "PTI", "page tables changed at each system call"),
    ("spectre_v2", "Retpolines", "retpolines"),
    ("spectre_v2", "Mitigation: IBRS", "IBRS at each system call"),
    ("retbleed", "Mitigation", "returns made safe"),
    ("mds", "Clear CPU buffers", "buffers cleared at each system call"),
    ("mmio_stale_data", "Clear CPU buffers", "buffers cleared at each system call"),
    ("spec_rstack_overflow", "Mitigation", "returns made safe"),
];

fn mitigations(files: &Files) -> Finding {
    const NAME: &str = "mitigations";
    let folder = "/sys/devices/system/cpu/vulnerabilities";
    let mut dear: Vec<String> = Vec::new();
    for (flaw, words, what) in DEAR {
        let text = files.read(&format!("{folder}/{flaw}")).unwrap_or_default();
        if text.contains(words) {
            dear.push(format!("{flaw}: {what}"));
        }
    }
    if dear.is_empty() {
        return Finding::of(Verdict::Good, TOPIC, NAME, "none that makes system calls dear", "");
    }
    let why = "packets in copy mode cost system calls, and each costs more for it. Only where nothing but trusted \
               programs runs on the machine, from the next boot on:";
    let command = "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&mitigations=off /' /etc/default/grub && update-grub";
    Finding::better(TOPIC, NAME, dear.join("; "), why).mend(Remedy::command(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &'static str) -> Release {
        Release::of(&Files::captured([("/proc/sys/kernel/osrelease", text)]))
    }

    #[test]
    fn versions_are_told_apart() {
        let verdict = |text| version(&release(text)).verdict;
        assert_eq!(verdict("5.10.0-32-amd64\n"), Verdict::WillNotWork);
        assert_eq!(verdict("6.0.19"), Verdict::WillNotWork);
        assert_eq!(verdict("6.1.0-37-amd64"), Verdict::CouldBeBetter);
        assert_eq!(verdict("6.17-rc1"), Verdict::Good);
        assert_eq!(verdict("6.18.5"), Verdict::Good);
        assert_eq!(verdict("10.0"), Verdict::Good);
        assert_eq!(verdict("unheard of"), Verdict::CouldBeBetter);
        let why = version(&release("6.12.43+deb13-cloud-amd64")).why;
        assert!(why.contains("6.17") && !why.contains("6.4"), "{why}");
    }

    #[test]
    fn what_the_kernel_was_not_built_with_is_said() {
        let sockets = |code, protocols: &'static str, capabilities: &'static str| {
            let files = Files::captured([
                ("/proc/thread-self/net/protocols", protocols),
                ("/proc/thread-self/status", capabilities),
                ("/proc/thread-self/uid_map", "0 0 4294967295"),
            ]);
            let found = sockets(&files, Err(io::Error::from_raw_os_error(code)));
            (found.verdict, found.what, found.why)
        };
        const THERE: &str = "protocol  size sockets\nXDP       1024      0\n";
        let (user, root) = ("CapEff:\t0000000000000000\n", "CapEff:\t000001ffffffffff\n");
        let (verdict, _, why) = sockets(libc::EAFNOSUPPORT, "protocol  size sockets\n", root);
        assert!(verdict == Verdict::WillNotWork && why.contains("CONFIG_XDP_SOCKETS"), "{why}");
        for code in [libc::EAFNOSUPPORT, libc::EPERM] {
            let (verdict, what, why) = sockets(code, THERE, root);
            assert_eq!((verdict, what.as_str()), (Verdict::WillNotWork, "it is kept from this process"));
            assert!(why.contains("RestrictAddressFamilies="), "{why}");
        }
        assert_eq!(sockets(libc::EPERM, THERE, user).0, Verdict::Good);
        assert_eq!(sockets(libc::ENFILE, THERE, root).0, Verdict::WillNotWork);
        let bpf = |code| {
            let found = bpf(Err(io::Error::from_raw_os_error(code)));
            (found.verdict, found.why)
        };
        for (code, words) in [(libc::ENOSYS, "CONFIG_BPF_SYSCALL"), (libc::EPERM, "SystemCallFilter=")] {
            let (verdict, why) = bpf(code);
            assert!(verdict == Verdict::WillNotWork && why.contains(words), "{why}");
        }
        assert_eq!(compiler(&Files::captured([])), None);
        let interpreted = Files::captured([("/proc/sys/net/core/bpf_jit_enable", "0\n")]);
        assert_eq!(compiler(&interpreted).unwrap().verdict, Verdict::CouldBeBetter);
    }

    #[test]
    fn mitigations_of_several_processors() {
        let at = |name: &'static str, text: &'static str| (name, text);
        // A Skylake of 2015, a Sapphire Rapids, an EPYC of the second generation.
        let skylake = Files::captured([
            at("/sys/devices/system/cpu/vulnerabilities/meltdown", "Mitigation: PTI"),
            at(
                "/sys/devices/system/cpu/vulnerabilities/spectre_v2",
                "Mitigation: IBRS; IBPB: conditional; RSB filling",
            ),
            at(
                "/sys/devices/system/cpu/vulnerabilities/mds",
                "Mitigation: Clear CPU buffers; SMT vulnerable",
            ),
        ]);
        let found = mitigations(&skylake);
        assert_eq!(found.verdict, Verdict::CouldBeBetter);
        for part in ["meltdown", "IBRS", "mds"] {
            assert!(found.what.contains(part), "{}", found.what);
        }
        let rapids = Files::captured([
            at("/sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected"),
            at(
                "/sys/devices/system/cpu/vulnerabilities/spectre_v2",
                "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; PBRSB-eIBRS: SW sequence; BHI: BHI_DIS_S",
            ),
            at("/sys/devices/system/cpu/vulnerabilities/mds", "Not affected"),
        ]);
        assert_eq!(mitigations(&rapids).verdict, Verdict::Good);
        let epyc = Files::captured([
            at(
                "/sys/devices/system/cpu/vulnerabilities/retbleed",
                "Mitigation: untrained return thunk; SMT enabled",
            ),
            at(
                "/sys/devices/system/cpu/vulnerabilities/spectre_v2",
                "Mitigation: Retpolines; IBPB: conditional",
            ),
        ]);
        assert_eq!(mitigations(&epyc).what, "spectre_v2: retpolines; retbleed: returns made safe");
    }
}
