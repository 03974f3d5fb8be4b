//! nginx on a real, with a small file for many requests and a large one that takes its time.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use afx_testbed::{Host, Process};

use super::common::PATIENCE;

/// The header in which a server says its number.
pub(crate) const REAL_HEADER: &str = "x-real";
/// What the load asks for, and what downloads do.
pub(crate) const SMALL: &str = "/small";
pub(crate) const LARGE: &str = "/large";
/// Bytes of the large file, and how many of them are sent a second.
pub(crate) const LARGE_SIZE: usize = 10 << 20;
pub(crate) const LARGE_RATE: usize = 320 << 10;

/// Bytes that nothing compresses, the same in every run; no two blocks are alike.
pub(crate) fn bytes(length: usize) -> Arc<[u8]> {
    (0..length as u64).map(|place| (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
}

/// Bytes of the small file: two segments' worth, and a bit.
pub(crate) fn small() -> Arc<[u8]> {
    bytes(3000)
}

/// Starts nginx in a folder below `folder` on a real, which answers as this number.
pub(crate) fn start(folder: &Path, real: &Host, number: u8, port: u16) -> Process {
    // A thousand connections may come at once when a stall ends.
    real.sysctl("net.core.somaxconn", "8192").unwrap();
    real.sysctl("net.ipv4.tcp_max_syn_backlog", "8192").unwrap();
    let folder = folder.join(format!("nginx{number}"));
    fs::create_dir_all(folder.join("files")).unwrap();
    fs::write(folder.join("files/small"), small()).unwrap();
    fs::write(folder.join("files/large"), bytes(LARGE_SIZE)).unwrap();
    fs::write(folder.join("nginx.conf"), config(number, port)).unwrap();
    // `-e`: before nginx has read where to log to, it would log to the machine's own file.
    let command = real.command("nginx").arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    let nginx = command.spawn().unwrap();
    // It listens before it starts its workers.
    nginx.wait_for_output("start worker process", PATIENCE).unwrap();
    nginx
}

/// It listens at all addresses: at the VIP for clients, at the real's own for checks. Paths are relative to the folder given by `-p`: nothing is written elsewhere.
fn config(number: u8, port: u16) -> String {
    format!(
        "\
daemon off;
user root;  # the files are root's
worker_processes 1;
worker_rlimit_nofile 16384;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_timeout 0;
    sendfile on;
    open_file_cache max=10;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {port} backlog=8192;
        root files;
        add_header {REAL_HEADER} {number};
        location {LARGE} {{ limit_rate {LARGE_RATE}; }}
    }}
}}
"
    )
}
