//! Compiles the XDP programs and generates their skeletons.
//!
//! Needs clang and the kernel's user-space headers. The libbpf headers are those that libbpf-sys was built
//! with; neither the running kernel's BTF nor bpftool is asked.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let libbpf_headers = env::var_os("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are");

    let mut clang_args: Vec<OsString> =
        vec!["-I".into(), libbpf_headers, "-Wall".into(), "-Werror".into(), "-mcpu=v3".into()];
    // Debian keeps asm/ in a folder of the architecture's, which clang does not search when it compiles for BPF.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        clang_args.extend(["-idirafter".into(), multiarch.into()]);
    }

    let traffic = env::var_os("CARGO_FEATURE_TRAFFIC").map(|_| "traffic");
    let testing = env::var_os("CARGO_FEATURE_TESTING").map(|_| ["other", "tag"]);
    let build = |source: &str, clang_args: &[OsString], skeleton: &str| {
        let source = format!("src/bpf/{source}.bpf.c");
        SkeletonBuilder::new()
            .source(&source)
            .clang_args(clang_args)
            .build_and_generate(out.join(format!("{skeleton}.skel.rs")))
            .unwrap_or_else(|error| panic!("{source} does not compile: {error:#}"));
    };
    for program in ["redirect", "decap"].into_iter().chain(traffic).chain(testing.into_iter().flatten()) {
        build(program, &clang_args, program);
    }
    // A program of its own, which needs the running kernel's BTF where it is loaded: the others do without.
    clang_args.push("-DRX_METADATA".into());
    build("redirect", &clang_args, "metadata");
    println!("cargo:rerun-if-changed=src/bpf");
}
