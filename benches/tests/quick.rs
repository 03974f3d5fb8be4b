//! Every measurement runs, and its row says something. Figures of so short a time mean nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afx-bench")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Builds a program that the harness starts and expects beside itself, unless it was built with the whole suite. This
/// crate cannot depend on it.
fn build(package: &str) {
    let debug = Path::new(env!("CARGO_BIN_EXE_afx-bench")).parent().unwrap();
    if debug.join(package).exists() {
        return;
    }
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "-p", package]).env("CARGO_TARGET_DIR", debug.parent().unwrap());
    let built = command.output().unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
}

/// Whether a peer is installed, by a question to the shell. Without it, its rows have none.
fn has(question: &str) -> bool {
    Command::new("sh").args(["-c", question]).output().is_ok_and(|output| output.status.success())
}

fn positive(row: &Value, field: &str) -> bool {
    row[field].as_f64().is_some_and(|figure| figure.is_finite() && figure > 0.0)
}

#[test]
fn every_measurement_runs() {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("out/summary.json");
    let names = text(&bench(&["--list"]).stdout);
    let names: Vec<&str> = names.lines().collect();
    assert!(names.len() >= 18, "{names:?}");
    build("afx-lb");
    build("afx-pktgen");

    let mut arguments = vec!["--quick", "--json", summary.to_str().unwrap()];
    arguments.extend(&names);
    let output = bench(&arguments);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");

    let rows: Vec<Value> = serde_json::from_str(&fs::read_to_string(&summary).unwrap()).unwrap();
    let found: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(found, names);
    for row in &rows {
        let name = row["name"].as_str().unwrap();
        assert!(positive(row, "ours") && row["rounds"] == 2, "{row:#}");
        assert!(row["our_settings"].as_str().is_some_and(|settings| settings.len() > 20), "{row:#}");
        assert!(out.contains(&format!("| {name} ")), "{name} is not in the table:\n{out}");
        let installed = match row["peer_name"].as_str() {
            None => false,
            Some("dpdk-testpmd") => has("command -v dpdk-testpmd"),
            Some("DPDK rte_hash" | "DPDK rte_fib") => has("pkg-config --exists libdpdk"),
            Some("nftables") => has("nft --version"),
            Some(_) => true,
        };
        let measured = ["peer", "ratio", "ratio_low", "ratio_high"];
        if installed {
            assert!(measured.iter().all(|field| positive(row, field)), "{row:#}");
            let [low, high] = ["ratio_low", "ratio_high"].map(|field| row[field].as_f64().unwrap());
            assert!(
                low <= high && row["peer_version"].is_string() && row["peer_settings"].is_string(),
                "{row:#}"
            );
        } else {
            assert!(measured.iter().all(|field| row[field].is_null()), "{row:#}");
            assert_eq!(row["value"], row["ours"]);
        }
    }
    // The harness ends in an error where the two sides do not find the same: that it has compared shows in the row.
    let compared =
        ["connection-table-64k-vs-rte-hash", "connection-table-1m-vs-rte-hash", "longest-prefix-vs-rte-fib"];
    for row in rows.iter().filter(|row| compared.contains(&row["name"].as_str().unwrap())) {
        assert!(row["checksum"].as_u64().is_some_and(|sum| sum > 0), "{row:#}");
    }

    // And they make a page.
    let page = folder.path().join("page.md");
    let marks = ["machine", "results", "balance-memory", "settings"]
        .map(|name| format!("<!-- begin: {name} -->\n<!-- end: {name} -->\n"))
        .concat();
    fs::write(&page, marks).unwrap();
    let reported = bench(&["--report", page.to_str().unwrap(), "--json", summary.to_str().unwrap()]);
    assert!(reported.status.success(), "{}", text(&reported.stderr));
    assert!(fs::read_to_string(&page).unwrap().contains("| idle-cpu "));
    for file in ["summary.json", "machine.json", "ratios.svg", "balance-memory.svg"] {
        let written = folder.path().join("page").join(file);
        assert!(written.metadata().unwrap().len() > 100, "{}", written.display());
    }
}

#[test]
fn a_name_that_is_none_is_an_error_with_all_that_are() {
    let output = bench(&["echo"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("no measurement \"echo\"") && error.contains("\n  echo-veth-vs-testpmd\n"),
        "{error}"
    );
}

#[test]
fn results_that_are_not_there_are_an_error() {
    let nowhere = PathBuf::from("/nonexistent/summary.json");
    for argument in [vec!["--table"], vec!["--report", "page.md"]] {
        let output = bench(&[&argument[..], &["--json", nowhere.to_str().unwrap()]].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains("/nonexistent/summary.json: `make bench` writes it"), "{error}");
    }
}

#[test]
fn options_that_make_no_sense_are_told_before_anything_runs() {
    for arguments in
        [&["--quick", "--rounds", "3"][..], &["--rounds", "1"], &["card", "eth1"], &["--table", "--list"]]
    {
        assert_eq!(bench(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
