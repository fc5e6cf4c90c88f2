//! Compiles `ebpf/sockets.c` for the kernel's virtual machine, with clang: gcc of today's distributions has no such
//! target. The object is a part of the program, so that a node needs no compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ebpf");
    for file in ["sockets.c", "decide.h", "layout.h", "kernel.h"] {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out: PathBuf = std::env::var_os("OUT_DIR").expect("cargo sets it").into();
    let object = out.join("sockets.o");
    // The types of maps (BTF) come with -g. No path of this machine gets into the object.
    let status = Command::new(&clang)
        .current_dir(&root)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"])
        .arg("-fdebug-compilation-dir=.")
        .args(["-c", "sockets.c", "-o"])
        .arg(&object)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang} could not compile ebpf/sockets.c ({status}); see above"),
        Err(error) => panic!(
            "cannot run {clang} ({error}): eBPF mode needs clang 11 or newer to be built. \
             `make setup` installs it; CLANG=PATH names another one."
        ),
    }
}
