//! The file as such: its version, keys, and marks.

use super::*;

#[test]
fn the_version_comes_first() {
    changed(
        "version = 1\n",
        "nonsense = 1\n",
        "lb.toml:1:1: error: the version of the file's format is missing\n    \
         nonsense = 1\n    ^\n    begin the file with `version = 1`",
    );
    changed(
        "version = 1",
        "version = 2",
        "lb.toml:1:11: error: version 2 of the format is not known here\n    \
         version = 2\n              ^\n    this program reads version 1",
    );
    changed(
        "version = 1",
        "version = \"1\"",
        "lb.toml:1:11: error: a string where a whole number is expected\n    \
         version = \"1\"\n              ^^^\n    expected is a number from 0 to 18446744073709551615",
    );
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known() {
    added(
        "wieght = 5",
        "lb.toml:12:1: error: the key `wieght` is not known in [[vip.real]]\n    \
         wieght = 5\n    ^^^^^^\n    did you mean `weight`?",
    );
    added(
        "[worker]\ncount = 1",
        "lb.toml:12:2: error: the key `worker` is not known\n    [worker]\n     ^^^^^^\n    did you mean `workers`?",
    );
    added(
        "[maglev]\nquux = 1",
        "lb.toml:13:1: error: the key `quux` is not known in [maglev]\n    quux = 1\n    ^^^^\n    \
         known are `table_size`, `seed`",
    );
}

#[test]
fn brackets_are_corrected() {
    changed(
        "[[port]]",
        "[port]",
        "lb.toml:2:1: error: there can be several `port`, so its brackets are double\n    \
         [port]\n    ^^^^^^\n    write it as `[[port]]`",
    );
    added(
        "[[workers]]\ncount = 1",
        "lb.toml:12:1: error: `workers` is a section, not a value\n    [[workers]]\n    ^^^^^^^^^^^\n    \
         write it as `[workers]`",
    );
}

#[test]
fn a_file_that_is_no_toml_says_where() {
    let all = messages(&RIGHT.replace("port = 443", "port = "));
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].starts_with("lb.toml:8:8: error: "), "{}", all[0]);
    let all = messages(&RIGHT.replace("port = 443", "port = 443\nport = 444"));
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].starts_with("lb.toml:9:1: error: duplicate key"), "{}", all[0]);
}

#[test]
fn all_problems_are_told_at_once_and_in_order() {
    let text =
        RIGHT.replace("eth1", "").replace("443", "0").replace("10.0.0.11", "10.0.0").replace("\"ipip\"", "7");
    let lines: Vec<String> =
        messages(&text).iter().map(|message| message.split(": ").next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["lb.toml:3:13", "lb.toml:5:10", "lb.toml:8:8", "lb.toml:11:11"]);
}

#[test]
fn a_mark_stands_under_what_it_means() {
    let text = RIGHT.replace("port = 443", "\tport = \"ü\" # ünicode");
    assert_eq!(
        messages(&text),
        ["lb.toml:8:9: error: \"ü\" is no port\n    \tport = \"ü\" # ünicode\n    \
          \t       ^^^\n    expected is a number from 1 to 65535, or \"any\""]
    );
}

/// What reading a file at that path comes to, which is one error.
#[track_caller]
fn unreadable(path: &Path) -> String {
    let Outcome { config, diagnostics } = Config::load(path);
    assert!(config.is_none());
    assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
    diagnostics[0].to_string()
}

#[test]
fn a_line_longer_than_any_screen_is_not_shown() {
    let sources: String = (0..100).map(|n| format!("\"192.0.2.{n}\", ")).collect();
    assert_eq!(
        messages(&with(&format!("sources = [{sources}\"x\"]"))),
        ["lb.toml:12:1402: error: \"x\" is no prefix\n    \
          expected is a prefix or an address, such as \"192.0.2.0/24\" or \"2001:db8::/64\""]
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    assert_eq!(
        unreadable(Path::new("/nowhere/lb.toml")),
        "/nowhere/lb.toml: error: there is no such file\n    give the path of a configuration"
    );
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let path = folder.path().display();
    assert_eq!(
        unreadable(folder.path()),
        format!("{path}: error: it is a folder\n    give the path of a file in it")
    );
    let file = folder.path().join("lb.toml");
    std::fs::write(&file, b"version = 1\n# caf\xe9\n").expect("it is writable");
    assert_eq!(
        unreadable(&file),
        format!(
            "{path}/lb.toml:2:6: error: the byte 0xe9 is no UTF-8\n    # caf\u{fffd}\n         ^\n    \
             a configuration is UTF-8 text: was it saved with another encoding?"
        )
    );
    let long = format!("/{}", "x".repeat(300));
    assert_eq!(
        unreadable(Path::new(&long)),
        format!("{long}: error: cannot read the file: File name too long (os error 36)")
    );
    assert_eq!(
        unreadable(&file.join("lb.toml")),
        format!(
            "{path}/lb.toml/lb.toml: error: a part of its path is a file, not a folder\n    \
             give the path of a configuration"
        )
    );
}

#[test]
fn unknown_keys_are_found_in_every_section() {
    for (section, key, nearest) in [
        ("[control]", "soket", "socket"),
        ("[icmp]", "to_big", "too_big"),
        ("[decapsulation]", "adresses", "addresses"),
        ("[connections]", "capcity", "capacity"),
        ("[workers]", "core", "cores"),
    ] {
        wrong(
            &with(&format!("{section}\n{key} = 1")),
            13,
            key,
            &format!("the key `{key}` is not known in {section}"),
            &format!("did you mean `{nearest}`?"),
        );
    }
    wrong(
        &with_vip("fragment = \"drop\""),
        10,
        "fragment",
        "the key `fragment` is not known in [[vip]]",
        "did you mean `fragments`?",
    );
}
