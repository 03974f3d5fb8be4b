//! The `afx-testbed` command, as its user runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A network brought up from the example file under a name of its own, taken down even when the test fails.
struct Up {
    name: String,
}

fn testbed(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afx-testbed")).args(arguments).output().unwrap()
}

fn unique(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn up(name: &str, text: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("net.toml");
    fs::write(&file, text.replace("\"routed\"", &format!("{name:?}"))).unwrap();
    testbed(&["up", file.to_str().unwrap()])
}

fn example() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/routed.toml")).unwrap()
}

fn namespaces(name: &str) -> usize {
    let prefix = format!("afx.{name}.");
    // The folder is made with the first network ever.
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Up {
    fn new() -> Self {
        let this = Self { name: unique("command") };
        let output = up(&this.name, &example());
        assert!(output.status.success(), "{}", said(&output));
        this
    }

    fn exec(&self, host: &str, program: &[&str]) -> Output {
        testbed(&[&["exec", self.name.as_str(), host], program].concat())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        testbed(&["down", &self.name]);
    }
}

#[test]
fn a_network_is_brought_up_used_and_taken_down() {
    let net = Up::new();
    for address in ["10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12"] {
        let ping = net.exec("client", &["ping", "-c", "1", "-W", "30", address]);
        assert!(ping.status.success(), "{}", said(&ping));
    }
    let ttl = net.exec("router", &["cat", "/proc/sys/net/ipv4/ip_default_ttl"]);
    assert_eq!(said(&ttl).trim(), "32");
    let mac = net.exec("router", &["cat", "/sys/class/net/eth0/address"]);
    assert_eq!(said(&mac).trim(), "02:00:00:00:01:fe");
    let queues = net.exec("client", &["ls", "/sys/class/net/eth0/queues"]);
    assert_eq!(said(&queues).split_whitespace().collect::<Vec<_>>(), ["rx-0", "rx-1", "tx-0", "tx-1"]);

    let table = said(&testbed(&["list"]));
    let line =
        table.lines().find(|line| line.starts_with(&net.name) && line.contains("server1")).expect(&table);
    assert!(
        line.contains("eth0 10.2.0.11/24 fd02::11/64") && line.ends_with('1'),
        "its command runs: {line}"
    );
    let column = table.find("HOST").unwrap();
    assert_eq!(line.find("server1"), Some(column), "aligned:\n{table}");

    let json = testbed(&["list", "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let this = all.as_array().unwrap().iter().find(|found| found["name"] == *net.name).unwrap();
    assert!(this["owner"].is_null());
    let server = this["hosts"].as_array().unwrap().iter().find(|host| host["name"] == "server1").unwrap();
    assert_eq!(server["interfaces"][0]["addresses"], serde_json::json!(["10.2.0.11/24", "fd02::11/64"]));
    let pid = server["processes"][0].as_i64().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());

    let again = up(&net.name, &example());
    assert!(!again.status.success() && said(&again).contains("it is up already"), "{}", said(&again));
    assert_eq!(namespaces(&net.name), 5, "and it stays up");

    let down = testbed(&["down", &net.name]);
    assert!(down.status.success(), "{}", said(&down));
    assert_eq!(namespaces(&net.name), 0);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "killed, if not reaped by init yet: {stat}");
    assert!(!Path::new(&format!("/run/afx-testbed/afx.{}.up", net.name)).exists());
    let down = testbed(&["down", &net.name]);
    assert!(!down.status.success() && said(&down).contains("no network"), "{}", said(&down));
}

#[test]
fn exec_ends_as_the_program_does() {
    let net = Up::new();
    assert_eq!(net.exec("client", &["sh", "-c", "exit 42"]).status.code(), Some(42));
    assert_eq!(net.exec("client", &["true"]).status.code(), Some(0));
    // Replaced, not wrapped: a signal's death is seen as such.
    let killed = net.exec("client", &["sh", "-c", "kill -9 $$"]).status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(9));
    let hyphens = net.exec("client", &["echo", "-n", "--json"]);
    assert_eq!(said(&hyphens), "--json");

    for (host, program, status, expected) in [
        ("client", "no-such-program", 127, "no-such-program"),
        ("client", "/etc/passwd", 126, "/etc/passwd"),
        ("nobody", "true", 125, "no host \"nobody\"; there are: client, router, server1, server2"),
    ] {
        let output = net.exec(host, &[program]);
        assert_eq!(output.status.code(), Some(status));
        assert!(said(&output).contains(expected), "{}", said(&output));
    }
    let output = testbed(&["exec", "no-such-network", "h", "true"]);
    assert!(said(&output).contains("no network \"no-such-network\"") && said(&output).contains(&net.name));
}

#[test]
fn a_wrong_file_changes_nothing() {
    for (right, wrong, expected) in [
        ("mtu = 1500", "mtu = 1500\ncolour = \"blue\"", "unknown field `colour`"),
        ("10.2.0.11/24", "10.2.0.11", "such as 10.0.0.1/24"),
        (
            "host = \"server2\"",
            "host = \"server3\"",
            "no host \"server3\"; there are: client, router, server1, server2",
        ),
        ("version = 1", "version = 9", "version 9 is unknown: expected 1"),
        // What only the kernel finds wrong, and a program that is not there: what had been built goes again.
        ("via = \"10.1.0.254\"", "via = \"10.99.0.1\"", "route add 10.2.0.0/24 via 10.99.0.1"),
        ("[\"sleep\", \"infinity\"]", "[\"sleep\", \"infinity\"], [\"no-such-program\"]", "no-such-program"),
    ] {
        let name = unique("wrong");
        let output = up(&name, &example().replacen(right, wrong, 1));
        let said = said(&output);
        assert!(!output.status.success() && said.contains(expected), "{said}");
        assert_eq!(namespaces(&name), 0, "{said}");
        assert!(!Path::new(&format!("/run/afx-testbed/afx.{name}.up")).exists());
    }
    let output = testbed(&["up", "/no/such/file.toml"]);
    assert!(!output.status.success() && said(&output).contains("/no/such/file.toml"), "{}", said(&output));
}

#[test]
fn without_the_rights_it_says_which() {
    let name = unique("rights");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("version = 1\nname = {name:?}\nhosts = {{}}\n")).unwrap();
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"])
        .args([env!("CARGO_BIN_EXE_afx-testbed"), "up"])
        .arg(file.path())
        .output()
        .unwrap();
    let said = said(&output);
    assert!(!output.status.success() && said.contains("this process lacks CAP_NET_ADMIN"), "{said}");
}

#[test]
fn without_ip_it_says_which_package() {
    let name = unique("no-ip");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("version = 1\nname = {name:?}\nhosts.h = {{}}\n")).unwrap();
    let mut up = Command::new(env!("CARGO_BIN_EXE_afx-testbed"));
    let output = up.arg("up").arg(file.path()).env("PATH", "/nowhere").output().unwrap();
    let said = said(&output);
    assert!(!output.status.success() && said.contains("install the package iproute2"), "{said}");
}
