#!/usr/bin/env bash
# Fuzzes every target of fuzz/ for SECONDS_EACH (60) seconds, or the one that is named, on the stable toolchain: the
# compiler's own coverage is asked for by name, which is what cargo-fuzz does with a nightly one. There is no sanitizer
# of memory, which these crates have no use for: they have no unsafe code.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares)
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags are not for build scripts.
RUSTFLAGS="--cfg fuzzing ${coverage[*]}" cargo build --locked --release --target "$host"

mkdir -p artifacts
for target in "${@:-query message corefile}"; do
  for name in $target; do
    mkdir -p "corpus-found/$name"
    echo "fuzz: $name, ${SECONDS_EACH:-60} s"
    "target/$host/release/$name" -max_total_time="${SECONDS_EACH:-60}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
      -artifact_prefix="artifacts/$name-" "corpus-found/$name" "corpus/$name" 2>"artifacts/$name.log" || {
      tail -40 "artifacts/$name.log"
      echo "fuzz: $name failed; the input is in fuzz/artifacts"
      exit 1
    }
    grep -E 'stat::number_of_executed_units|stat::peak_rss_mb|Done|cov:' "artifacts/$name.log" | tail -4
  done
done
