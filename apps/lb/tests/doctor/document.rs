//! The document shows what is printed.

use serde_json::Value;

use crate::DOCUMENT;
use crate::lab::{Net, assert_documented};

/// What a page shows of an interface: from its heading to the next empty line.
fn section<'t>(page: &'t str, heading: &str) -> &'t str {
    let rest = page.split_once(heading).unwrap_or_else(|| panic!("{heading}\nin\n{page}")).1;
    rest.split_once("\n\n").map_or(rest, |(section, _)| section)
}

#[test]
fn the_document_shows_what_is_printed() {
    let net = Net::as_it_comes("doctor-doc");
    let page = net.doctor(&["eth0"]).stdout.replace(net.other.namespace(), "client");
    let heading = "\ninterface eth0\n";
    // Names of namespaces differ in length: lines are compared as they are, there are no columns behind them.
    let (shown, printed) = (section(DOCUMENT, heading), section(&page, heading));
    assert!(shown == printed, "printed:\n{printed}\nshown:\n{shown}");
    // Every name that there is has a line in the document.
    net.report(&["--try"], 1).findings().for_each(assert_documented);
}

#[test]
fn the_document_lists_every_field() {
    let net = Net::as_it_comes("doctor-fields");
    let report = net.report(&["--fix"], 1);
    let mut fields = Vec::new();
    let object = |value: &Value, prefix: &str, fields: &mut Vec<String>| {
        let object = value.as_object().unwrap_or_else(|| panic!("{prefix}: {value}"));
        fields.extend(object.keys().map(|key| format!("{prefix}{key}")));
    };
    object(&report.0, "", &mut fields);
    object(report.find("state"), "findings[].", &mut fields);
    object(&report.find("other end's checksums")["remedy"], "findings[].remedy.", &mut fields);
    object(&report.0["interfaces"][0], "interfaces[].", &mut fields);
    object(&report.0["fixed"][0], "fixed[].", &mut fields);
    let listed = DOCUMENT.split_once("## JSON").expect("it has that section").1;
    for field in &fields {
        assert!(listed.contains(&format!("| `{field}` ")), "{field}");
    }
    let count = listed.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(count, fields.len(), "{fields:?}");
}
