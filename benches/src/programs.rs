//! Programs of the project's own, which are measured as their users run them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// A program that was built as this one was.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("asking for this program's path")?;
    let path = this.with_file_name(name);
    let option = if cfg!(debug_assertions) { "" } else { " --release" };
    ensure!(path.exists(), "there is no {}: build it by `cargo build{option} -p {name}`", path.display());
    Ok(path)
}
