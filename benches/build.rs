//! Compiles the BPF programs that make and count packets. Needs clang and the kernel's user-space headers.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let headers = env::var_os("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are");
    let mut clang_args: Vec<OsString> =
        vec!["-I".into(), headers, "-Wall".into(), "-Werror".into(), "-mcpu=v3".into()];
    // Debian keeps asm/ in a folder of the architecture's, which clang does not search when it compiles for BPF.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        clang_args.extend(["-idirafter".into(), multiarch.into()]);
    }
    SkeletonBuilder::new()
        .source("src/bpf/traffic.bpf.c")
        .clang_args(&clang_args)
        .obj(out.join("traffic.bpf.o"))
        .build()
        .unwrap_or_else(|error| panic!("src/bpf/traffic.bpf.c does not compile: {error:#}"));
    println!("cargo:rerun-if-changed=src/bpf");
}
