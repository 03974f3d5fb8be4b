//! Other people's packet vectors through `afx-lb replay`, and the decapsulation program.
//!
//! They are read from the folder that the variable AFX_VECTORS names, and are no part of the project.

mod check;
mod config;
mod file;
mod hosts;
mod own;
mod replay;
mod wire;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use check::Chosen;
use file::{Common, DownReal, Read, Suite, Vip};
use replay::Outcome;
use wire::Flow;

#[test]
fn vectors_of_the_folder_pass() {
    let report = run(&folder());
    // Past the test harness, which shows what a test prints only if it fails.
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "\n{}", report.lines.join("\n"));
    drop(out);
    said.expect("the standard output takes it");
    assert!(
        report.wrong.is_empty(),
        "{} vectors are wrong:\n{}",
        report.wrong.len(),
        report.wrong.join("\n")
    );
}

/// Where the vectors are. A relative path begins at the workspace's folder: tests run in their package's, wherever cargo was
/// called.
fn folder() -> PathBuf {
    let named = std::env::var_os("AFX_VECTORS").unwrap_or_else(|| "../shared/vectors".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this is apps/lb of it");
    workspace.join(named)
}

/// What there is to say of a folder of vectors.
struct Report {
    lines: Vec<String>,
    /// How many vectors came out right.
    passed: usize,
    wrong: Vec<String>,
}

/// A suite and the file that it is from.
struct Found {
    file: String,
    common: Common,
    suite: Read,
}

fn run(folder: &Path) -> Report {
    let mut report = Report { lines: Vec::new(), passed: 0, wrong: Vec::new() };
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    names.sort();
    let mut all = Vec::new();
    for path in names {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        match text.and_then(|text| file::suites(&text)) {
            Ok((common, suites)) => all.extend(suites.into_iter().map(|suite| Found {
                file: file.clone(),
                common: common.clone(),
                suite,
            })),
            Err(why) => report.lines.push(format!("{file}: not packet vectors: {why}")),
        }
    }
    if all.is_empty() {
        report.lines.push(format!("skipped: no vectors in {} (set AFX_VECTORS)", folder.display()));
        return report;
    }
    for found in &all {
        let file = &found.file;
        let (suite, outcome) = match &found.suite {
            Ok(suite) => (&suite.name, judge(suite, found, &all)),
            Err((name, why)) => (name, Judgement::Unsupported(why.clone())),
        };
        match outcome {
            Judgement::Passed(count, remark) => {
                report.passed += count;
                report.lines.push(format!("{file}: {suite}: {count} vectors{remark}"));
            }
            Judgement::Unsupported(why) => report.lines.push(format!("{file}: unsupported: {suite}: {why}")),
            Judgement::Wrong(wrong) => {
                report.lines.push(format!("{file}: {suite}: {} are wrong", wrong.len()));
                report.wrong.extend(wrong);
            }
        }
    }
    report.lines.push(format!("{} vectors", report.passed));
    report
}

enum Judgement {
    /// How many, and what there is to say besides.
    Passed(usize, String),
    Unsupported(String),
    Wrong(Vec<String>),
}

fn judge(suite: &Suite, found: &Found, all: &[Found]) -> Judgement {
    let wrong = if suite.config.encap == "decap" {
        if let Some(why) = hosts::unsupported(suite) {
            return Judgement::Unsupported(why);
        }
        hosts::check(suite)
    } else {
        let chain = match chain(suite, found, all) {
            Ok(chain) => chain,
            Err(why) => return Judgement::Unsupported(why),
        };
        if let Some(why) = chain.iter().find_map(|(suite, common)| config::unsupported(suite, common)) {
            return Judgement::Unsupported(why);
        }
        replayed(&chain)
    };
    let strange = config::strange(suite).join(", ");
    let count = suite.vectors.len();
    match (wrong.first(), &*strange) {
        (None, "") => Judgement::Passed(count, String::new()),
        (None, strange) => Judgement::Passed(count, format!(", without knowing {strange}")),
        (Some(_), "") => Judgement::Wrong(wrong.iter().map(|(id, why)| format!("{id}: {why}")).collect()),
        // Nobody knows what the suite asks for.
        (Some((id, why)), strange) => {
            Judgement::Unsupported(format!("{strange} is not known here, and {id}: {why}"))
        }
    }
}

/// The suite and those that it continues, the first of them first.
fn chain(suite: &Suite, found: &Found, all: &[Found]) -> Result<Vec<(Suite, Common)>, String> {
    let mut chain = vec![(suite.clone(), found.common.clone())];
    while let Some(name) = chain[0].0.config.runs_after.clone() {
        let named = |other: &&Found| other.suite.as_ref().is_ok_and(|suite| suite.name == name);
        let same_file = all.iter().filter(|other| other.file == found.file).find(named);
        let other = same_file.or_else(|| all.iter().find(named));
        let before = other.and_then(|other| Some((other.suite.as_ref().ok()?.clone(), other.common.clone())));
        let before = before.ok_or_else(|| format!("it continues {name}, which is not there"))?;
        if chain.iter().any(|(suite, _)| suite.name == name) {
            return Err(format!("it continues {name}, which continues it"));
        }
        chain.insert(0, before);
    }
    Ok(chain)
}

/// Runs suites one after another in one balancer, and says what is wrong with the last one's vectors.
fn replayed(chain: &[(Suite, Common)]) -> Vec<(String, String)> {
    let (last, earlier) = chain.split_last().expect("at least the suite itself");
    let mut suites: Vec<(Suite, Common)> = Vec::new();
    let mut before = Chosen::new();
    for (suite, common) in earlier {
        suites.push((follow(suite.clone(), &suites, &before), common.clone()));
        match outcome(&suites) {
            Ok(outcome) => before = chosen(&suites, &outcome),
            Err(said) => return vec![(suite.name.clone(), said)],
        }
    }
    suites.push((follow(last.0.clone(), &suites, &before), last.1.clone()));
    let (suite, common) = suites.last().expect("it was just added");
    let first = suites.iter().map(|(suite, _)| suite.vectors.len()).sum::<usize>() - suite.vectors.len();
    match outcome(&suites) {
        Ok(outcome) => check::check(suite, common, &outcome, first, &before),
        Err(said) => vec![(suite.name.clone(), said)],
    }
}

fn outcome(suites: &[(Suite, Common)]) -> Result<Outcome, String> {
    let mut configs = Vec::new();
    let mut packets = Vec::new();
    for (suite, common) in suites {
        configs.push((packets.len(), config::toml(suite, common)));
        packets.extend(suite.vectors.iter().map(|vector| vector.input.clone()));
    }
    replay::replay(&configs, &packets)
}

fn chosen(suites: &[(Suite, Common)], outcome: &Outcome) -> Chosen {
    let mut first = 0;
    let mut all = Chosen::new();
    for (suite, _) in suites {
        all.extend(check::chosen(suite, outcome, first));
        first += suite.vectors.len();
    }
    all
}

/// In a suite before which a real was taken out of a VIP, and whose flows must not go there any more, takes out the one
/// that serves them here: which it is depends on the hash.
fn follow(mut suite: Suite, before: &[(Suite, Common)], chosen: &Chosen) -> Suite {
    for number in 0..suite.config.vips.len() {
        let vip = &suite.config.vips[number];
        let down: BTreeSet<IpAddr> = vip.down_reals.iter().map(|down| down.addr).collect();
        let served: BTreeSet<IpAddr> = flows_that_leave(&suite, vip, &down)
            .iter()
            .flat_map(|flow| earlier_real(*flow, before, chosen))
            .collect();
        if served.is_empty() {
            continue;
        }
        let network = config::network(vip);
        let exchange = |list: &mut Vec<IpAddr>, out: &BTreeSet<IpAddr>, into: &BTreeSet<IpAddr>| {
            let kept: Vec<IpAddr> = list.iter().copied().chain(into.iter().copied()).collect();
            *list = kept.into_iter().filter(|real| !out.contains(real)).collect();
        };
        for vector in &mut suite.vectors {
            let flow = vector.input.get(14..).and_then(Flow::of);
            if flow.is_some_and(|flow| network.contains(&flow.destination))
                && let Some(selection) =
                    vector.real_selection.as_mut().filter(|it| !it.must_not_be.is_empty())
            {
                selection.must_not_be = served.iter().copied().collect();
                exchange(&mut vector.real_allowed, &served, &down);
            }
        }
        let vip = &mut suite.config.vips[number];
        let weight = vip.reals.first().map_or(1, |real| real.weight);
        let back = down.difference(&served).map(|addr| file::Real { addr: *addr, weight, local: false });
        vip.reals.extend(back.collect::<Vec<_>>());
        vip.reals.retain(|real| !served.contains(&real.addr));
        vip.down_reals = served.into_iter().map(|addr| DownReal { addr }).collect();
    }
    suite
}

/// The flows to a VIP that have to leave a real which is not among its reals any more.
fn flows_that_leave(suite: &Suite, vip: &Vip, down: &BTreeSet<IpAddr>) -> BTreeSet<Flow> {
    if down.is_empty() || vip.reals.iter().any(|real| down.contains(&real.addr)) {
        return BTreeSet::new();
    }
    let leaving = suite.vectors.iter().filter(|vector| {
        vector.real_selection.as_ref().is_some_and(|it| it.must_not_be.iter().any(|real| down.contains(real)))
    });
    let flows = leaving.filter_map(|vector| Flow::of(vector.input.get(14..)?));
    flows.filter(|flow| config::network(vip).contains(&flow.destination)).collect()
}

/// Who served a flow in earlier suites, the last time.
fn earlier_real(flow: Flow, before: &[(Suite, Common)], chosen: &Chosen) -> Option<IpAddr> {
    let vectors = before.iter().flat_map(|(suite, _)| &suite.vectors).rev();
    let mut same = vectors.filter(|vector| vector.input.get(14..).and_then(Flow::of) == Some(flow));
    same.find_map(|vector| chosen.get(&vector.id).copied())
}
