//! The command socket and the page of metrics.

use super::*;

#[test]
fn there_is_a_socket_and_no_metrics_unless_said() {
    let control = |lines: &str| valid(&with(lines)).control;
    let socket = |path: &str| Some(PathBuf::from(path));
    assert_eq!(
        control(""),
        Control { socket: socket("/run/afx-lb.sock"), metrics: None, privileges: Privileges::Reload }
    );
    assert_eq!(control("[control]\nsocket = \"none\"").socket, None);
    assert_eq!(
        control("[control]\nsocket = \"/run/lb 2/ü.sock\"\nmetrics = \"[::1]:9100\"\nprivileges = \"least\""),
        Control {
            socket: socket("/run/lb 2/ü.sock"),
            metrics: Some("[::1]:9100".parse().unwrap()),
            privileges: Privileges::Least
        }
    );
    let longest = format!("/{}", "x".repeat(106));
    assert_eq!(control(&format!("[control]\nsocket = \"{longest}\"")).socket, socket(&longest));
}

#[test]
fn a_socket_is_where_one_can_be() {
    let refused = |path: &str, what: &str, help: &str| {
        let text = with(&format!("[control]\nsocket = \"{path}\""));
        wrong(&text, 13, &format!("\"{path}\""), what, help);
    };
    let example = "expected is an absolute path such as \"/run/afx-lb.sock\", or \"none\"";
    refused("afx-lb.sock", "the socket's path \"afx-lb.sock\" is not absolute", example);
    refused("", "the socket's path \"\" is not absolute", example);
    refused("/run/", "\"/run/\" cannot be the path of a socket", example);
    refused("/run/\\u0000", "\"/run/\\0\" cannot be the path of a socket", example);
    let long = format!("/{}", "x".repeat(107));
    let shorter = "a Unix socket's has at most 107: choose a shorter one";
    refused(&long, "the socket's path has 108 bytes", shorter);
    // Bytes count, not characters.
    refused(&format!("/{}", "ü".repeat(54)), "the socket's path has 109 bytes", shorter);
    let text = with("[control]\nsocket = 1");
    wrong(&text, 13, "1", "a whole number where a string is expected", example);
}

#[test]
fn metrics_are_served_at_an_address_with_a_port() {
    let refused = |address: &str, what: &str, help: &str| {
        let text = with(&format!("[control]\nmetrics = \"{address}\""));
        wrong(&text, 13, &format!("\"{address}\""), what, help);
    };
    let example =
        "expected is an address and a port such as \"127.0.0.1:9100\" or \"[::1]:9100\", or \"none\"";
    refused("9100", "\"9100\" is no address with a port", example);
    refused("localhost:9100", "\"localhost:9100\" is no address with a port", example);
    refused("127.0.0.1:65536", "\"127.0.0.1:65536\" is no address with a port", example);
    let missing = "the port is missing: write it as \"127.0.0.1:9100\"";
    refused("127.0.0.1", "\"127.0.0.1\" is no address with a port", missing);
    refused("::1", "\"::1\" is no address with a port", "the port is missing: write it as \"[::1]:9100\"");
    refused("127.0.0.1:0", "port 0 is no port to be found at", "expected is one from 1 to 65535");
}
