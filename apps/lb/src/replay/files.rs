//! What is written: whole, or not at all.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use tempfile::NamedTempFile;

/// A place to write to.
pub(super) struct Target {
    /// As the user gave it.
    name: PathBuf,
    file: File,
    /// Another name until all is written, and the one that it then gets. None for what is no file: a pipe, a terminal,
    /// /dev/null.
    pending: Option<(NamedTempFile, PathBuf)>,
}

impl Target {
    /// Makes ready a file that is not there until [`finish`](Self::finish), or has its old content until then. `-` is the
    /// standard output.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let name = if path == Path::new("-") { "the standard output".into() } else { path.to_owned() };
        let opened = if path == Path::new("-") { standard_output() } else { open(path) };
        let opened = opened.with_context(|| format!("cannot write {}", name.display()));
        opened.map(|(file, pending)| Self { name, file, pending })
    }

    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// What to write to.
    pub(super) fn file(&self) -> Result<File> {
        self.file.try_clone().with_context(|| format!("cannot write {}", self.name.display()))
    }

    /// All is written: now the file is there.
    pub(super) fn finish(self) -> Result<()> {
        if let Some((file, path)) = self.pending {
            file.persist(path).with_context(|| format!("cannot write {}", self.name.display()))?;
        }
        Ok(())
    }
}

type Opened = (File, Option<(NamedTempFile, PathBuf)>);

fn standard_output() -> Result<Opened> {
    Ok((File::from(io::stdout().as_fd().try_clone_to_owned()?), None))
}

fn open(path: &Path) -> Result<Opened> {
    // The file that a symbolic link leads to is replaced, not the link.
    let path = match path.canonicalize() {
        Ok(path) => {
            let metadata = std::fs::metadata(&path)?;
            if metadata.is_dir() {
                bail!("it is a folder");
            }
            // Replacing a file needs no right to write to it, but its owner has a reason for that.
            let file = OpenOptions::new().write(true).open(&path)?;
            if !metadata.is_file() {
                return Ok((file, None));
            }
            path
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error.into()),
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // What the process's umask leaves of it, as with any other file.
    let permissions = Permissions::from_mode(0o666);
    let temporary = tempfile::Builder::new().prefix(".afx-lb-").permissions(permissions).tempfile_in(folder);
    let temporary = temporary.map_err(|error| {
        // The error names a file that the user does not know; what is behind it does not.
        let inner = error.get_ref().and_then(|error| error.source()).map(ToString::to_string);
        anyhow!(inner.unwrap_or_else(|| error.to_string()))
    })?;
    Ok((temporary.as_file().try_clone()?, Some((temporary, path))))
}

/// That nothing is written to what is read, nor two things to one file. Each path comes with the option that gives it.
pub(super) fn check_distinct(read: &[(&str, &PathBuf)], written: &[(&str, &PathBuf)]) -> Result<()> {
    for (number, (option, path)) in written.iter().enumerate() {
        let mut others = read.iter().chain(&written[..number]);
        if let Some((other, _)) = others.find(|(_, other)| is_same(path, other)) {
            bail!("{option} {} is the same file as that of {other}: nothing was changed", path.display());
        }
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino(), metadata.is_file()))
    };
    match (identity(one), identity(other)) {
        // All may go to /dev/null.
        (Some(one), Some(other)) => one == other && one.2,
        // Neither is there yet.
        (None, None) => match (place(one), place(other)) {
            (Some(one), Some(other)) => one == other,
            _ => false,
        },
        _ => false,
    }
}

/// The folder that a new file will be in, and its name there.
fn place(path: &Path) -> Option<(PathBuf, &std::ffi::OsStr)> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    Some((folder.canonicalize().ok()?, path.file_name()?))
}
