use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(more: &[&str]) -> Result<Options, String> {
    let line = ["rfc2544", "--send", "lo", "--receive", "lo"].iter().chain(more);
    Line::try_parse_from(line).map(|line| line.options).map_err(|error| error.to_string())
}

fn said(more: &[&str]) -> String {
    match options(more) {
        Err(error) => error,
        Ok(options) => options.plan().unwrap_err().to_string(),
    }
}

#[test]
fn what_is_not_said_is_as_in_the_rfc() {
    let options = options(&["--max-rate", "1Mpps"]).unwrap();
    let plan = options.plan().unwrap();
    let labels: Vec<_> = plan.frames.iter().map(|frames| frames.label.as_str()).collect();
    assert_eq!(labels, ["64", "128", "256", "512", "1024", "1280", "1518"]);
    assert_eq!(plan.tests.len(), 4);
    assert_eq!((plan.settings.loss, plan.settings.resolution), (0.0, 0.01));
    assert!(plan.highest.iter().all(|highest| *highest == (1e6, Limit::Asked)));
    assert_eq!(options.source().to_string(), "198.18.0.2");
}

#[test]
fn the_shortest_frames_of_ipv6_are_longer() {
    let options = options(&["--destination", "2001:2:0:1::2", "--max-rate", "1Mpps"]).unwrap();
    assert_eq!(options.plan().unwrap().frames[0].label, "84");
}

#[test]
fn what_would_be_right_is_said() {
    for (more, right) in [
        (&["--sizes", "64-128", "--max-rate", "1Mpps"][..], "say single ones"),
        (&["--sizes", "64", "--destination", "2001:2:0:1::2"], "from 84 on"),
        (&["--sizes", "9000"], "at most 3844 bytes"),
        (&["--source", "2001:2::1"], "both are of one IP version"),
        // The loopback has no speed.
        (&[], "such as `--max-rate 10Gbit/s`"),
        (&["--max-rate", "50%"], "The interface says no speed"),
        (&["--loss", "1"], "such as `0%` or `0.1%`"),
        (&["--loss", "100%"], "below 100%"),
        (&["--resolution", "0%"], "from 0.01% to 50%"),
        (&["--loads", "0"], "such as `10,50,90`"),
        (&["--cores", "1"], "such as `2,3`"),
        (&["--plot", "x.png"], "rsvg-convert"),
        (&["--tests", "speed"], "back-to-back"),
    ] {
        let said = said(more);
        assert!(said.contains(right), "{more:?}: {said}");
    }
}

#[test]
fn too_little_throughput_is_a_failure() {
    let mut device = simulated::Simulated::new(1e6);
    let (report, _) = text::tests::report(&mut device, &[64, 1518]);
    let line = Some(10_000_000_000);
    let failures = |rate: &str| below(&report, rate.parse().unwrap(), line).unwrap();
    assert_eq!(failures("500kpps").len(), 0);
    let all = failures("max");
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(
        all[0].starts_with("frames of 64: ")
            && all[0].ends_with("below the 14.8810 Mpps of --fail-below max")
    );
    assert_eq!(failures("900kpps").len(), 1, "1518 bytes reach no more than the line takes");
}
