#!/usr/bin/env bash
# Runs a program of this machine in a small machine of QEMU, with Debian's own kernel: for what the kernel here lacks, such
# as IPVS. Software emulation, at most two processors, no network device; it ends with the program, or after MACHINE_SECONDS.
#
#   scripts/machine.sh PROGRAM [ARGUMENT…]
#
# The program is taken along with its libraries, with other programs named in MACHINE_PROGRAMS, and with the files named in
# MACHINE_FILES (whole folders, at the same paths). Its output is the output here, and so is its exit status.
# scripts/setup.sh gets what is needed.
set -euo pipefail

if [ "$#" -lt 1 ]; then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
program="$(realpath "$1")"
shift
seconds="${MACHINE_SECONDS:-600}"
memory_mb="${MACHINE_MEMORY_MB:-1536}"
processors="$(($(nproc) < 2 ? 1 : 2))"
here="$(cd "$(dirname "$0")/.." && pwd)"
parts="$here/target/machine"
kernel="$(find "$parts/linux/boot" -name 'vmlinuz-*' 2>/dev/null | sort | tail -1 || true)"
busybox="$parts/busybox/bin/busybox"
[ -n "$kernel" ] && [ -x "$busybox" ] && command -v qemu-system-x86_64 >/dev/null || {
    echo "machine: QEMU or the kernel for it is missing; run scripts/setup.sh first" >&2
    exit 77
}
version="${kernel##*/vmlinuz-}"

work="$(mktemp -d "${TMPDIR:-/tmp}/portolan-machine.XXXXXX")"
trap 'rm -rf "$work"' EXIT
root="$work/root"
mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,etc,lib,usr/bin,usr/sbin}
cp "$busybox" "$root/bin/busybox"
for applet in sh mount insmod modprobe poweroff; do ln -s busybox "$root/bin/$applet"; done
ln -s ../bin/busybox "$root/sbin/modprobe"

# The kernel loads modules by itself when something asks for them, by way of /sbin/modprobe.
modules="lib/modules/$version"
mkdir -p "$root/$modules"
for folder in net/netfilter net/ipv4 net/ipv6 net/bridge net/802 net/llc net/8021q net/core net/packet net/unix net/sctp \
    net/netlink lib crypto arch/x86/crypto drivers/net/veth.ko drivers/net/dummy.ko; do
    [ -e "$parts/linux/$modules/kernel/$folder" ] || continue
    mkdir -p "$root/$modules/kernel/$(dirname "$folder")"
    cp -r "$parts/linux/$modules/kernel/$folder" "$root/$modules/kernel/$(dirname "$folder")/"
done
cp "$parts/linux/$modules"/modules.{builtin,order} "$root/$modules/"
"$busybox" depmod -b "$root" "$version"

# take FILE: the file and the libraries that it needs, at the same paths.
take() {
    local file library
    mkdir -p "$root$(dirname "$1")"
    cp -L "$1" "$root$1"
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
        [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library"; }
    done
}
take "$program"
for tool in ip nft ipvsadm ${MACHINE_PROGRAMS:-}; do
    take "$(PATH="$PATH:/usr/sbin:/sbin" command -v "$tool")"
    # Where iptables has its extensions.
    case "$tool" in iptables*) MACHINE_FILES="${MACHINE_FILES:-} $(echo /usr/lib/*/xtables)" ;; esac
done
# Debug information would be most of it.
strip "$root$program" 2>/dev/null || true
for tool in ${MACHINE_PROGRAMS:-}; do strip "$root$(PATH="$PATH:/usr/sbin:/sbin" command -v "$tool")" 2>/dev/null || true; done
for file in ${MACHINE_FILES:-}; do
    file="$(realpath "$file")"
    mkdir -p "$root$(dirname "$file")"
    cp -r "$file" "$root$(dirname "$file")/"
done

{
    echo '#!/bin/sh'
    echo 'mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run'
    echo 'mount -t cgroup2 cgroup /sys/fs/cgroup'
    echo 'mkdir -p /dev/shm; export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TMPDIR=/tmp RUST_BACKTRACE=1'
    # Two programs that ask for one module at once would not wait for each other.
    echo '/bin/busybox modprobe -a -q veth dummy bridge nf_tables nfnetlink nf_conntrack_netlink nft_ct nft_nat nft_chain_nat nft_masq nft_reject_inet nft_reject_ipv4 nft_reject_ipv6 nft_numgen nft_hash ip_vs ip_vs_rr ip_vs_wrr'
    echo '/bin/busybox ip link set lo up'
    for name in CI PORTOLAN_SEED PROPTEST_CASES; do
        [ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
    done
    printf '%q ' "$program" "$@"
    printf '\necho "machine: exit $?"\n/bin/busybox poweroff -f\n'
} >"$root/init"
sed -i 's#^mkdir#/bin/busybox mkdir#' "$root/init"
chmod +x "$root/init"
(cd "$root" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$work/initrd"

# Only software emulation: /dev/kvm may be there and not work. `timeout` ends it by its process id.
timeout "$seconds" qemu-system-x86_64 -accel tcg -cpu qemu64,+rdrand -smp "$processors" -m "$memory_mb" -nodefaults -no-user-config \
    -display none -no-reboot -nic none -serial stdio -kernel "$kernel" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=unstable clocksource=hpet" </dev/null 2>&1 | sed -u 's/\r$//' | tee "$work/console" ||
    echo "machine: not done after $seconds s, or QEMU failed" >&2
status="$(sed -n 's/^machine: exit \([0-9]*\)$/\1/p' "$work/console" | tail -1)"
if [ -z "$status" ]; then
    echo "machine: it ended before the program did" >&2
    exit 125
fi
exit "$status"
