//! Compiles the programs of `ebpf/` for the kernel's virtual machine, with clang: gcc of today's distributions has no
//! such target. The objects are a part of the program, so that a node needs no compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 3] = ["sockets", "tc", "xdp"];
const HEADERS: [&str; 10] = [
    "decide.h",
    "flows.h",
    "kernel.h",
    "layout.h",
    "outside.h",
    "packet.h",
    "read.h",
    "skb.h",
    "tc_maps.h",
    "xdp.h",
];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ebpf");
    let sources = PROGRAMS.map(|program| format!("{program}.c"));
    for file in sources.iter().map(String::as_str).chain(HEADERS) {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out: PathBuf = std::env::var_os("OUT_DIR").expect("cargo sets it").into();
    for (program, source) in PROGRAMS.into_iter().zip(&sources) {
        compile(
            &clang,
            &root,
            source,
            &out.join(program).with_extension("o"),
        );
    }
}

fn compile(clang: &str, root: &Path, source: &str, object: &Path) {
    // The types of maps (BTF) come with -g. No path of this machine gets into the object.
    let status = Command::new(clang)
        .current_dir(root)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"])
        .arg("-fdebug-compilation-dir=.")
        .args(["-c", source, "-o"])
        .arg(object)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang} could not compile ebpf/{source} ({status}); see above"),
        Err(error) => panic!(
            "cannot run {clang} ({error}): eBPF mode needs clang 11 or newer to be built. \
             `make setup` installs it; CLANG=PATH names another one."
        ),
    }
}
