//! What the kernel says in `/proc` and `/sys`.

use std::fs;

/// Where it is read: on this machine, or as it was captured on another.
pub(crate) enum Files {
    Machine,
    #[cfg(test)]
    Captured(std::collections::BTreeMap<&'static str, &'static str>),
}

impl Files {
    #[cfg(test)]
    pub(crate) fn captured<const N: usize>(files: [(&'static str, &'static str); N]) -> Self {
        Self::Captured(files.into())
    }

    /// A file's text, without the end of its last line; None where there is none, or it may not be read.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        match self {
            Self::Machine => fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned()),
            #[cfg(test)]
            Self::Captured(files) => files.get(path).map(|text| text.trim_end().to_owned()),
        }
    }

    /// A file that is a number.
    pub(crate) fn number(&self, path: &str) -> Option<i64> {
        self.read(path)?.trim().parse().ok()
    }

    /// What lies in a folder, sorted; nothing where there is none.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Self::Machine => {
                let entries = fs::read_dir(folder).into_iter().flatten().flatten();
                entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
            }
            #[cfg(test)]
            Self::Captured(files) => {
                let below = |path: &&str| path.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned);
                let first = |path: String| path.split('/').next().unwrap_or_default().to_owned();
                files.keys().filter_map(below).map(first).collect()
            }
        };
        names.sort();
        names.dedup();
        names
    }
}

/// The value in a line `name: value`, up to its unit.
#[cfg(any(test, feature = "doctor"))]
pub(crate) fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

/// The numbers in a list such as `0-3,8`.
pub(crate) fn list(text: &str) -> Vec<usize> {
    let range = |range: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Numbers as the kernel writes them: `0-3,8`. They have to be in order.
#[cfg(any(test, feature = "settings"))]
pub(crate) fn written(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        assert_eq!(list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert!(list("").is_empty());
        assert_eq!(written(&[0, 1, 2, 3, 8]), "0-3,8");
        assert_eq!(written(&[]), "");
    }

    #[test]
    fn folders_and_fields_are_found() {
        let files = Files::captured([("/a/b/c", "1\n"), ("/a/b/d/e", "x"), ("/a/bc", "")]);
        assert_eq!(files.names("/a/b"), ["c", "d"]);
        assert_eq!(files.number("/a/b/c"), Some(1));
        assert_eq!(files.read("/a/x"), None);
        assert_eq!(field("HugePages_Free:      496\n", "HugePages_Free"), Some("496"));
    }
}
