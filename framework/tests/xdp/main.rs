//! The AF_XDP port on real interfaces: veth between network namespaces. Needs root.
//!
//! Each test ends with every frame accounted for and no XDP program left behind.

mod download;
mod examples;
mod forwarding;
mod jumbo;
mod lifecycle;
mod metadata;
mod settings;
mod steering;
mod stopping;
mod support;
mod wire;

/// Whether the kernel is of that release or a later one.
fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= wanted
}
