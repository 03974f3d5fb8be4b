//! Compares what hot paths cost with the baselines in the repository: `make guard`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use afx_guard::compare::{Comparison, Counts, counted};
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Compares what hot paths cost, in instructions, with the baselines in the repository.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fails if a path costs more than the tolerance above its baseline, or has none, or was not counted.
    Check(Files),
    /// Makes the counts the new baselines, and shows what changes.
    Update(Files),
}

#[derive(clap::Args)]
struct Files {
    /// What gungraun printed with --output-format=json.
    counts: PathBuf,
    /// The baselines: a JSON object of names and instructions.
    baselines: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Check(files) => check(&files),
        Command::Update(files) => update(&files).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("guard: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(files: &Files) -> Result<bool> {
    let comparison = Comparison::new(&baselines(&files.baselines)?, &counts(&files.counts)?);
    println!("{comparison}");
    Ok(comparison.passes())
}

fn update(files: &Files) -> Result<()> {
    let now = counts(&files.counts)?;
    let before = if files.baselines.exists() { baselines(&files.baselines)? } else { Counts::new() };
    // What changes, without the advice to do what is being done.
    let comparison = Comparison::new(&before, &now);
    println!("{}", comparison.table());
    let text = serde_json::to_string_pretty(&now)? + "\n";
    fs::write(&files.baselines, text).with_context(|| files.baselines.display().to_string())?;
    println!("{} baselines written to {}", now.len(), files.baselines.display());
    Ok(())
}

fn counts(file: &Path) -> Result<Counts> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    counted(&text).with_context(|| file.display().to_string())
}

fn baselines(file: &Path) -> Result<Counts> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text)
        .with_context(|| format!("{}: no JSON object of names and instructions", file.display()))
}
