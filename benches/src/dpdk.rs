//! Peers made of DPDK's libraries: small C programs of the project's own, compiled when they are needed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::core::APPLICATION_CORE;
use crate::huge;

const HEADER: &str = include_str!("../peers/peer.h");

/// A program and its source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    name: &'static str,
    source: &'static str,
    /// Huge pages that it fills.
    pages: u32,
}

pub(crate) const RTE_HASH: Program =
    Program { name: "rte_hash", source: include_str!("../peers/rte_hash.c"), pages: 96 };
pub(crate) const RTE_FIB: Program =
    Program { name: "rte_fib", source: include_str!("../peers/rte_fib.c"), pages: 256 };

/// The version of DPDK to compile for; None where it, or what compiling takes, is not installed.
pub(crate) fn version() -> Option<String> {
    let says = |program: &str, arguments: &[&str]| -> Option<String> {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    says("cc", &["--version"])?;
    let version = says("pkg-config", &["--modversion", "libdpdk"])?;
    Some(says("dpkg-query", &["-W", "-f=${Version}", "libdpdk-dev"]).unwrap_or(version))
}

/// Compiles a program for this machine.
fn compile(program: Program, folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let source = folder.join(program.name).with_extension("c");
    for (path, text) in [(&folder.join("peer.h"), HEADER), (&source, program.source)] {
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "libdpdk"]).output()?;
    ensure!(flags.status.success(), "pkg-config knows no libdpdk");
    let flags = String::from_utf8(flags.stdout).context("what pkg-config says")?;
    let target = folder.join(program.name);
    let output = Command::new("cc")
        .args(["-O3", "-march=native", "-o"])
        .args([&target, &source])
        .args(flags.split_whitespace())
        .output()
        .context("starting cc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} does not compile: {said}", source.display());
    Ok(target)
}

/// A running peer, which waits until it is told to measure.
pub(crate) struct Lookups {
    child: Child,
    // None once it is told to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) settings: String,
}

/// What a peer, or afx, has found in a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    /// Processor time of a look-up.
    pub(crate) nanos: f64,
    /// Sum of what one pass over all queries finds.
    pub(crate) checksum: u64,
}

impl Lookups {
    /// Compiles and starts a peer over files of what its table holds, and of queries.
    pub(crate) fn start(program: Program, folder: &Path, table: &Path, queries: &Path) -> Result<Self> {
        let path = compile(program, folder)?;
        let pages = if huge::free() >= program.pages { "huge" } else { "ordinary" };
        let mut child = Command::new(&path)
            .args([&APPLICATION_CORE.to_string(), pages])
            .args([table, queries])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", path.display()))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("its output is piped")?);
        let mut peer = Self { child, input, output, settings: String::new() };
        let ready = peer.line().context("waiting for it to be ready")?;
        let settings = ready.strip_prefix("ready ").with_context(|| format!("unexpected: {ready:?}"))?;
        peer.settings = format!("{settings}; cc -O3 -march=native; core {APPLICATION_CORE}");
        Ok(peer)
    }

    /// Has it look up for a while.
    pub(crate) fn run(&mut self, during: Duration) -> Result<Found> {
        let input = self.input.as_mut().context("it has been told to end")?;
        writeln!(input, "run {}", during.as_millis())?;
        input.flush()?;
        read(&self.line()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            let mut said = String::new();
            if let Some(errors) = self.child.stderr.as_mut() {
                errors.read_to_string(&mut said)?;
            }
            bail!("the peer has ended: {}", said.trim());
        }
        Ok(line.trim().to_owned())
    }
}

/// Reads an answer: `NANOSECONDS COUNT CHECKSUM`.
fn read(line: &str) -> Result<Found> {
    let numbers: Vec<u64> = line
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("expected NANOSECONDS COUNT CHECKSUM, not {line:?}"))?;
    let [nanos, count, checksum] = numbers[..] else { bail!("expected three numbers, not {line:?}") };
    ensure!(count > 0, "it has looked nothing up: {line:?}");
    Ok(Found { nanos: nanos as f64 / count as f64, checksum })
}

impl Drop for Lookups {
    fn drop(&mut self) {
        // At the end of its input it ends, and its huge pages with it.
        self.input = None;
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_three_numbers() {
        assert_eq!(read("1000 40 7").unwrap(), Found { nanos: 25.0, checksum: 7 });
        assert_eq!(read("1000 40 18446744073709551615").unwrap().checksum, u64::MAX);
        for wrong in ["", "1000 40", "1000 40 7 8", "1000 x 7", "1000 0 7", "1000  40 7"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
