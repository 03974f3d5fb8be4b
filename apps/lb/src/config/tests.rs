//! What files mean, and what is said of wrong ones: whole messages, as an operator reads them.

mod checks;
mod control;
mod diff;
mod edit;
mod example;
mod form;
mod forwarding;
mod key;
mod machine;
mod meaning;
mod reals;
mod syntax;
mod vips;

use super::*;

/// A file that is right, to be made wrong in one place.
const RIGHT: &str = r#"version = 1
[[port]]
interface = "eth1"
[forwarding]
method = "ipip"
[[vip]]
address = "198.51.100.10"
port = 443
protocol = "tcp"
[[vip.real]]
address = "10.0.0.11"
"#;

#[track_caller]
fn valid(text: &str) -> Config {
    let Outcome { config, diagnostics } = Config::parse("lb.toml", text);
    let messages: Vec<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
    assert!(messages.is_empty(), "{}", messages.join("\n\n"));
    config.expect("a file without errors gives a configuration")
}

fn messages(text: &str) -> Vec<String> {
    let Outcome { config, diagnostics } = Config::parse("lb.toml", text);
    assert_eq!(config.is_none(), diagnostics.iter().any(Diagnostic::is_error));
    diagnostics.iter().map(Diagnostic::to_string).collect()
}

/// Asserts that the right file, with one part of it replaced, has this one message.
#[track_caller]
fn changed(part: &str, by: &str, message: &str) {
    assert!(RIGHT.contains(part), "{part}");
    assert_eq!(messages(&RIGHT.replacen(part, by, 1)).join("\n\n"), message);
}

/// Asserts that the right file, with some lines more, has this one message.
#[track_caller]
fn added(lines: &str, message: &str) {
    assert_eq!(messages(&format!("{RIGHT}{lines}\n")).join("\n\n"), message);
}

/// Asserts that a file has this one error, with that part of that line (from 1) marked, the last such part.
#[track_caller]
fn wrong(text: &str, line: usize, part: &str, what: &str, help: &str) {
    let all = text.lines().nth(line - 1).expect("the file has that line");
    let place = all.rfind(part).expect("the line has that part");
    let blank = " ".repeat(place);
    let expected = format!(
        "lb.toml:{line}:{}: error: {what}\n    {all}\n    {blank}{}\n    {help}",
        place + 1,
        "^".repeat(part.chars().count())
    );
    assert_eq!(messages(text).join("\n\n"), expected);
}

/// The right file, with some lines more: they begin with line 12, and continue its real.
fn with(lines: &str) -> String {
    format!("{RIGHT}{lines}\n")
}

/// The right file, with some lines more in its VIP: they begin with line 10.
fn with_vip(lines: &str) -> String {
    RIGHT.replace("[[vip.real]]", &format!("{lines}\n[[vip.real]]"))
}

/// The key of a VIP, as people write it.
fn key(text: &str) -> VipKey {
    text.parse().expect("it names a VIP")
}
