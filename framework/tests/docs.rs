//! What the documentation quotes is what is compiled, and what it links to is there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// The workspace's Markdown files, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root(), root().join("docs")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() && folder != root() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&entry).unwrap();
                found.push((entry, text));
            }
        }
    }
    assert!(found.iter().any(|(file, _)| file.ends_with("README.md")));
    found
}

/// The Rust blocks of a document, each with the file that the comment above it names.
fn quotations(text: &str) -> Vec<(Option<&str>, String)> {
    let mut found = Vec::new();
    let mut source = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "```rust" {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((source.take(), block.join("\n") + "\n"));
        } else if !line.is_empty() {
            source = line.strip_prefix("<!-- quoted from ").and_then(|line| line.strip_suffix(" -->"));
        }
    }
    found
}

#[test]
fn every_rust_block_is_quoted_from_a_file_that_is_compiled() {
    let mut blocks = 0;
    for (document, text) in documents() {
        for (source, block) in quotations(&text) {
            let at = format!("{}, the block that begins with {:?}", document.display(), block.lines().next());
            let source =
                source.unwrap_or_else(|| panic!("{at}: no line `<!-- quoted from FILE -->` above it"));
            let file =
                fs::read_to_string(root().join(source)).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(file.contains(&block), "{at}: not in {source} in these words");
            blocks += 1;
        }
    }
    assert!(blocks >= 5, "{blocks} blocks found");
}

#[test]
fn the_readme_shows_the_whole_echo_example() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let example = fs::read_to_string(root().join("framework/examples/echo.rs")).unwrap();
    let (_, code) = example.split_once("\n\n").expect("its documentation ends with an empty line");
    assert!(quotations(&readme).iter().any(|(_, block)| block == code));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut links = 0;
    for (document, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.starts_with('#') {
                continue;
            }
            let file = document.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(file.exists(), "{} links to {link}", document.display());
            links += 1;
        }
    }
    assert!(links >= 10, "{links} links found");
}
