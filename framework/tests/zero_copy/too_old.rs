//! A kernel that afx does not support: the doctor says so, and whatever is started on it says so, and ends.

use std::path::PathBuf;
use std::process::Command;

use afx_testbed::Testbed;

use crate::cable::Cable;
use crate::doctor::Card;
use crate::support::*;

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned()
}

/// What every refusal says of the kernel, in a line.
fn refusal(program: &str) -> String {
    let release = release();
    format!(
        "Linux {release} does not load the {program} program (Invalid argument (os error 22)): afx needs Linux 6.1 or later"
    )
}

#[test]
fn the_doctor_says_so() {
    let card = Card::new(Cable::First);
    card.show(&[]);
    let report = card.bad_report(&[], &["version"]);
    assert_eq!(report.find("version"), ("will_not_work", release().as_str()));
    // It is so.
    let report = card.bad_report(&["--try"], &["version", "generic XDP, tried"]);
    assert_eq!(report.find("native XDP, tried").1, refusal("redirect"));
    assert_eq!(report.find("generic XDP, tried").1, refusal("redirect"));
}

#[test]
fn nothing_is_started() {
    let card = Card::new(Cable::First);
    let name = card.ends[0].as_str();
    let folder = Testbed::new("too-old").unwrap();
    let file = folder.directory().join("lb.toml");
    std::fs::write(
        &file,
        format!(
            "version = 1\n[[port]]\ninterface = \"{name}\"\n[workers]\ncount = 1\n[forwarding]\nmethod = \"ipip\"\n\
             [[vip]]\naddress = \"198.51.100.10\"\nport = 80\nprotocol = \"tcp\"\n\
             [[vip.real]]\naddress = \"10.0.0.11\"\nnext_hop = \"02:00:00:00:00:11\"\n"
        ),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let all: [(PathBuf, &[&str], &str); 4] = [
        (program("afx-lb"), &["run", "--config", file], "redirect"),
        (program("afx-pktgen"), &["echo", name], "redirect"),
        (program("afx-decap"), &[name], "decapsulation"),
        (example("echo"), &[name], "redirect"),
    ];
    let before = card.settings();
    for (program, arguments, loaded) in all {
        let output = Command::new("timeout").arg("60").arg(&program).args(arguments).output().unwrap();
        let (said, shown) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        println!("$ {} {}\n{shown}{said}", program.display(), arguments.join(" "));
        assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}", output.status);
        // The example leaves it to Rust how an error is shown.
        let expected = if program.ends_with("echo") { "TooOld".to_owned() } else { refusal(loaded) };
        assert!(said.contains(&expected), "{said}");
        assert_eq!(card.settings(), before);
    }
}
