//! The balancer's metrics in the Prometheus text format: `afx_lb_…`, after those of the framework, `afx_…`.
//!
//! docs/metrics.md lists them all; a test compares.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Operator;
use super::protocol::{HealthState, RealState, RealStatus, Status, VipStatus};

type Labels = Vec<(&'static str, String)>;

/// Whole numbers, and fractions.
type Whole = Gauge<i64, AtomicI64>;
type Fraction = Gauge<f64, AtomicU64>;

/// A part of 1.
fn ratio() -> Unit {
    Unit::Other("ratio".to_owned())
}

/// All metrics, as text.
pub(crate) fn page(operator: &mut dyn Operator) -> String {
    let framework = afx::stats::metrics::render(&operator.stats());
    let (status, vips, reals) = (operator.status(), operator.vips(), operator.reals());
    // Each of the two texts ends with a mark that only the end of the page may have.
    let mut page = framework.trim_end_matches("# EOF\n").to_owned();
    page += &render(&status, &vips, &reals);
    page
}

/// The balancer's own.
fn render(status: &Status, vips: &[VipStatus], reals: &[RealStatus]) -> String {
    let mut metrics = Metrics { registry: Registry::with_prefix("afx_lb") };
    metrics.program(status);
    metrics.connections(status);
    metrics.vips(vips);
    metrics.reals(reals);
    let mut text = String::new();
    encode(&mut text, &metrics.registry).expect("a string takes all that is written to it");
    text
}

struct Metrics {
    registry: Registry,
}

impl Metrics {
    fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in samples {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Whole>::default();
        for (labels, value) in samples {
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.registry.register(name, help, family);
    }

    fn fraction(
        &mut self,
        name: &str,
        help: &str,
        unit: Unit,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Fraction>::default();
        for (labels, value) in samples {
            family.get_or_create(&labels).set(value);
        }
        self.registry.register_with_unit(name, help, unit, family);
    }

    fn program(&mut self, status: &Status) {
        let Status { version, configuration, checks, .. } = status;
        let program = Info::new(vec![("version", version.clone())]);
        self.registry.register("build", "The program", program);
        self.fraction("uptime", "Time since the start", Unit::Seconds, [(vec![], status.uptime_seconds)]);
        let age = [(vec![], configuration.loaded_seconds_ago)];
        self.fraction("configuration_age", "Time since the file was put in force", Unit::Seconds, age);
        let reloads = [(vec![], configuration.reloads)];
        self.counter("reloads", "Times that the file was put in force again", reloads);
        let failed = [(vec![], configuration.failed_reload.is_some().into())];
        self.gauge("reload_failed", "1 where the newest reload failed", failed);
        let changed = [(vec![], configuration.changed.into())];
        self.gauge("configuration_changed", "1 where commands have changed what the file says", changed);
        let warnings = [(vec![], status.warnings.len() as u64)];
        self.gauge("warnings", "Things that an operator should know of, see status", warnings);
        let health = |health: HealthState| vec![("health", health.to_string())];
        let checked = [
            (health(HealthState::Up), checks.up),
            (health(HealthState::Down), checks.down),
            (health(HealthState::Unknown), checks.unknown),
            (health(HealthState::Held), checks.held),
        ];
        self.gauge("checked_reals", "Reals that have a health check, by what it says", checked);
        let busy = status
            .workers
            .iter()
            .filter_map(|worker| Some((vec![("worker", worker.worker.to_string())], worker.busy?)));
        self.fraction("worker_busy", "Part of its time in which the worker has packets", ratio(), busy);
    }

    fn connections(&mut self, status: &Status) {
        let table = &status.connections;
        let one = |value: u64| [(vec![], value)];
        self.gauge("connections", "Connections in the tables of all workers", one(table.connections));
        self.gauge("connections_closing", "Connections whose client has ended them", one(table.closing));
        self.gauge("connections_capacity", "Connections that there is room for", one(table.capacity));
        self.counter("connections_inserted", "Connections made", one(table.inserted));
        self.counter("connections_expired", "Connections that were silent for too long", one(table.expired));
        let kinds = [("live", table.evicted_live), ("closing", table.evicted_closing)];
        let evicted = kinds.map(|(kind, count)| (vec![("kind", kind.to_owned())], count));
        self.counter("connections_evicted", "Connections gone for want of room", evicted);
    }

    fn vips(&mut self, vips: &[VipStatus]) {
        let each = |value: fn(&VipStatus) -> u64| {
            vips.iter().map(move |vip| (vec![("vip", vip.vip.to_string())], value(vip)))
        };
        self.gauge("vip_reals", "Reals of the VIP", each(|vip| vip.reals));
        self.gauge("vip_reals_up", "Reals of the VIP that get new flows", each(|vip| vip.reals_up));
        self.gauge("vip_connections", "Connections to the VIP", each(|vip| vip.connections));
        self.counter("vip_opened", "Connections to the VIP that were opened", each(|vip| vip.opened));
        self.counter("vip_packets", "Packets to the VIP sent to reals", each(|vip| vip.traffic.packets));
        self.counter(
            "vip_bytes",
            "Bytes of these packets, from the client's IP header on",
            each(|vip| vip.traffic.bytes),
        );
    }

    fn reals(&mut self, reals: &[RealStatus]) {
        fn each<T>(
            reals: &[RealStatus],
            value: impl Fn(&RealStatus) -> Option<T>,
        ) -> impl Iterator<Item = (Labels, T)> {
            reals.iter().filter_map(move |real| Some((labels_of(real), value(real)?)))
        }
        let states = [RealState::Up, RealState::Drain, RealState::Down, RealState::Out];
        let in_state = reals.iter().flat_map(|real| {
            states.map(|state| (with(real, "state", state.to_string()), u64::from(real.state == state)))
        });
        self.gauge("real_state", "1 for the state that the real is in", in_state);
        let verdicts = [HealthState::Up, HealthState::Down, HealthState::Unknown, HealthState::Held];
        let health = reals.iter().filter_map(|real| Some((real, real.health.as_ref()?)));
        let in_health = health.flat_map(|(real, health)| {
            verdicts.map(|verdict| {
                (with(real, "health", verdict.to_string()), u64::from(health.state == verdict))
            })
        });
        self.gauge("real_health", "1 for what the real's health check says", in_health);
        let reachable = each(reals, |real| Some(u64::from(real.next_hop.is_some())));
        self.gauge("real_reachable", "1 where the way to the real is known", reachable);
        self.gauge(
            "real_weight",
            "Weight of the real as configured",
            each(reals, |real| Some(real.weight.into())),
        );
        let weight_now = each(reals, |real| Some(real.weight_now.into()));
        self.gauge("real_weight_now", "Weight of the real that counts now", weight_now);
        let share = each(reals, |real| Some(real.share));
        self.fraction("real_share", "Part of the VIP's new flows that the real gets", ratio(), share);
        self.gauge("real_connections", "Connections of the real", each(reals, |real| Some(real.connections)));
        let opened = each(reals, |real| Some(real.opened));
        self.counter("real_opened", "Connections that the real was chosen for", opened);
        let packets = each(reals, |real| Some(real.traffic.packets));
        self.counter("real_packets", "Packets sent to the real", packets);
        let bytes = each(reals, |real| Some(real.traffic.bytes));
        self.counter("real_bytes", "Bytes of these packets, from the client's IP header on", bytes);
        let remaining = each(reals, |real| real.drain?.remaining_seconds);
        self.fraction(
            "real_drain_remaining",
            "Time until the real's drain is over",
            Unit::Seconds,
            remaining,
        );
    }
}

fn labels_of(real: &RealStatus) -> Labels {
    vec![("vip", real.vip.to_string()), ("real", real.address.to_string())]
}

fn with(real: &RealStatus, name: &'static str, value: String) -> Labels {
    let mut labels = labels_of(real);
    labels.push((name, value));
    labels
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::super::fake::{Balancer, Fake, SOON};
    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");
    const FRAMEWORK: &str = include_str!("../../../../framework/src/stats/metrics.rs");

    /// The tables' rows, whatever is in them.
    fn rows<'a>(text: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
        text.lines().filter_map(move |line| line.strip_prefix(begin)).filter(|row| row.starts_with("| `afx_"))
    }

    /// The names in backquotes of a table's cell.
    fn names(cell: &str) -> BTreeSet<&str> {
        cell.split('`').skip(1).step_by(2).collect()
    }

    /// The metrics of a page, each with its labels. Each must have its help.
    fn metrics(page: &str) -> BTreeMap<&str, BTreeSet<&str>> {
        assert!(page.ends_with("# EOF\n") && page.matches("# EOF").count() == 1);
        let mut metrics = BTreeMap::new();
        for sample in page.lines().filter(|line| !line.starts_with('#')) {
            let (name, rest) = sample.split_once('{').unwrap();
            let family = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
            let help = page.lines().find(|line| line.starts_with(&format!("# HELP {family} ")));
            assert!(help.is_some_and(|help| help.ends_with('.')), "{family}");
            let mut before: Vec<_> = rest.split("=\"").collect();
            before.pop();
            let labels = before.iter().map(|part| part.rsplit(',').next().unwrap()).collect();
            let earlier = metrics.insert(name, labels);
            assert!(earlier.is_none_or(|earlier| earlier == metrics[name]), "{name}");
        }
        metrics
    }

    #[test]
    fn every_metric_is_documented_with_its_labels() {
        let page = page(&mut Fake::new());
        let documented: BTreeMap<_, _> = rows(DOCUMENT, "")
            .filter(|row| row.starts_with("| `afx_lb_"))
            .map(|row| {
                let mut cells = row.split('|').skip(1);
                let name = names(cells.next().unwrap()).into_iter().next().unwrap();
                (name, names(cells.next().unwrap()))
            })
            .collect();
        assert_eq!(documented, metrics(&page));
    }

    #[test]
    fn the_frameworks_metrics_are_documented_as_it_says() {
        let columns = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let said: Vec<_> = rows(FRAMEWORK, "//! ").map(columns).collect();
        let documented: Vec<_> =
            rows(DOCUMENT, "").filter(|row| !row.starts_with("| `afx_lb_")).map(columns).collect();
        assert!(said.len() > 10);
        assert_eq!(documented, said);
    }

    #[test]
    fn what_is_scraped_is_what_the_balancer_says() {
        let balancer = Balancer::start(Fake::new());
        let mut stream = TcpStream::connect(balancer.metrics).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for sample in [
            r#"afx_lb_build_info{version="0.1.0"} 1"#,
            r#"afx_lb_vip_reals_up{vip="198.51.100.10:443/tcp"} 3"#,
            r#"afx_lb_real_state{vip="198.51.100.10:443/tcp",real="10.0.0.13",state="drain"} 1"#,
            r#"afx_lb_real_health{vip="198.51.100.10:443/tcp",real="10.0.0.14",health="down"} 1"#,
            r#"afx_lb_real_reachable{vip="198.51.100.10:443/tcp",real="10.0.0.15"} 0"#,
            r#"afx_lb_real_packets_total{vip="198.51.100.10:443/tcp",real="10.0.0.12"} 12000000"#,
            r#"afx_lb_real_drain_remaining_seconds{vip="198.51.100.10:443/tcp",real="10.0.0.13"} 80.0"#,
            r#"afx_lb_connections_evicted_total{kind="closing"} 120"#,
            r#"afx_lb_worker_busy_ratio{worker="1"} 0.375"#,
        ] {
            assert!(answer.lines().any(|line| line == sample), "{sample} in:\n{answer}");
        }
        assert!(!answer.contains(r#"real="10.0.0.11",health="down"} 1"#));
    }
}
