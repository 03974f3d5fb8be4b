use super::super::simulated::Simulated;
use super::super::text::tests::report;
use super::*;

/// All texts of a picture.
fn texts(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let of = |node: roxmltree::Node<'_, '_>| node.text().map(|text| text.trim().to_owned());
    document.descendants().filter(|node| node.has_tag_name("text")).filter_map(of).collect()
}

#[test]
fn the_picture_has_its_panels_units_and_sizes() {
    let mut device = Simulated { buffer: 500.0, ..Simulated::new(1e6) };
    let (report, _) = report(&mut device, &[64, 512, 1518]);
    let svg = svg(&report).unwrap().unwrap();
    let texts = texts(&svg);
    for wanted in [
        "RFC 2544: eth0 to eth1",
        "Throughput in frames",
        "Throughput in bits",
        "Latency, median",
        "Latency, percentile 99.9",
        "Frame loss rate",
        "Mpps",
        "Gbit/s",
        "µs",
        "line rate",
        "64",
        "512",
        "1518",
        "imix",
    ] {
        assert!(texts.iter().any(|text| text == wanted), "{wanted} in {texts:?}");
    }
    let document = roxmltree::Document::parse(&svg).unwrap();
    let number = |node: &roxmltree::Node<'_, '_>, name: &str| node.attribute(name)?.parse::<f64>().ok();
    let root = document.root_element();
    let size = (number(&root, "width").unwrap(), number(&root, "height").unwrap());
    for circle in document.descendants().filter(|node| node.has_tag_name("circle")) {
        let (x, y) = (number(&circle, "cx").unwrap(), number(&circle, "cy").unwrap());
        assert!((0.0..size.0).contains(&x) && (0.0..size.1).contains(&y), "{x}, {y} of {size:?}");
    }
}

#[test]
fn values_of_nothing_and_single_sizes_can_be_drawn() {
    let (report, _) = report(&mut Simulated::new(0.0), &[64]);
    let svg = svg(&report).unwrap().unwrap();
    assert!(texts(&svg).iter().any(|text| text == "Frame loss rate"));
    assert!(!texts(&svg).iter().any(|text| text == "Latency, median"));
}

#[test]
fn where_nothing_was_measured_there_is_no_picture() {
    assert_eq!(svg(&Report::default()).unwrap(), None);
}

#[test]
fn numbers_on_axes_are_short() {
    assert_eq!([0.001, 0.5, 1.0, 100.0, 10_000.0].map(short), ["0.001", "0.5", "1", "100", "10,000"]);
}
