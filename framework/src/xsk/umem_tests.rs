use super::super::{current_node, node_of};
use super::*;

fn config() -> UmemConfig {
    UmemConfig { frames: 64, huge_pages: false, ..UmemConfig::default() }
}

/// Bytes of the pages that hold `address`, as the kernel accounts for them.
fn page_size_at(address: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let mut inside = false;
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let parse = |hex| usize::from_str_radix(hex, 16).expect("an address");
            inside = (parse(start)..parse(end)).contains(&address);
        } else if inside && first == "KernelPageSize:" {
            let kibibytes = line.split_whitespace().nth(1).expect("a size");
            return kibibytes.parse::<usize>().expect("a number") * 1024;
        }
    }
    panic!("{address:#x} is not mapped");
}

#[test]
fn the_base_is_where_the_region_begins_and_all_of_it_can_be_written() {
    let umem = Umem::new(config()).expect("a small UMEM");
    assert_eq!(umem.len(), 64 * 2048);
    assert_eq!(umem.base().addr().get() % 4096, 0);
    // SAFETY: the region is `len` bytes, and nobody else knows of it yet.
    let bytes = unsafe { std::slice::from_raw_parts_mut(umem.base().as_ptr(), umem.len()) };
    bytes.fill(0xa5);
    // What xsk-rs believes to be the second frame's data lies where our address arithmetic says.
    // SAFETY: nobody writes meanwhile.
    let data = unsafe { umem.library.data(&umem.samples[1]) }.contents().as_ptr();
    assert_eq!(data.addr(), umem.base().addr().get() + umem.samples[1].addr());
}

#[test]
fn the_pages_it_reports_are_those_it_has() {
    let huge = Umem::new(UmemConfig { huge_pages: true, ..config() }).expect("huge pages or normal ones");
    let expected = match huge.pages() {
        Pages::Huge { size } => {
            assert_eq!(huge.len() % size, 0, "the last huge page is filled");
            size
        }
        Pages::Normal => 4096,
    };
    assert_eq!(page_size_at(huge.base().addr().get()), expected);
    assert!(huge.frames() >= 64);

    let normal = Umem::new(config()).expect("normal pages");
    assert_eq!(normal.pages(), Pages::Normal);
    assert_eq!(page_size_at(normal.base().addr().get()), 4096);
    assert_eq!(normal.frames(), 64);
}

#[test]
fn sizes_that_cannot_work_are_refused_with_what_would() {
    let refused = |config: UmemConfig| Umem::new(config).expect_err("refused").to_string();
    let text = refused(UmemConfig { frame_size: 3000, ..config() });
    assert_eq!(text, "frame size cannot be 3000: the kernel takes 2048 or 4096 bytes");
    assert!(refused(UmemConfig { frames: 1, ..config() }).contains("two at least"));
    assert!(refused(UmemConfig { headroom: 2000, ..config() }).contains("room for a packet"));
    assert!(
        refused(UmemConfig { fill_entries: 1000, ..config() }).contains("fill ring entries cannot be 1000")
    );
    assert!(refused(UmemConfig { completion_entries: 0, ..config() }).contains("power of two"));
}

#[test]
fn memory_comes_from_the_node_that_is_wanted_and_from_another_where_that_has_none() {
    let here = current_node().expect("the kernel says");
    // The last two are of no machine.
    for wanted in [here, 1000, u32::MAX] {
        let umem = Umem::new(UmemConfig { numa_node: Some(wanted), ..config() }).expect("a small UMEM");
        let node = node_of(umem.base()).expect("it is mapped");
        assert!(node == here || wanted != here, "{node} instead of {here}");
    }
}
