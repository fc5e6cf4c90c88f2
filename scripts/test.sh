#!/usr/bin/env bash
# Everything that must hold before a change lands. `make test` and CI run this.
# Stops at the first step that fails, and says at the end what ran.
set -euo pipefail
cd "$(dirname "$0")/.."

ran=()
step() {
    local name="$1" start=$SECONDS
    shift
    echo "== $name"
    "$@"
    ran+=("$name ($((SECONDS - start)) s)")
}

step "setup" scripts/setup.sh
step "format" cargo fmt --all --check
step "licences and sources of dependencies" cargo deny --locked check licenses bans sources
step "clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
step "tidy: the laws of ARCHITECTURE.md" cargo xtask tidy
step "tests" cargo test --locked --workspace
step "build" cargo build --locked --package portolan
# The same demo that people see, with the binary that is there already.
step "demo" env PORTOLAN="${CARGO_TARGET_DIR:-target}/debug/portolan" scripts/demo.sh
# The tests have built it; to build it by itself would build its dependencies with other features.
step "soak, a short one" env PORTOLAN="${CARGO_TARGET_DIR:-target}/debug/portolan" "${CARGO_TARGET_DIR:-target}/debug/soak" --short
step "the front door while endpoints and routes change, shortly" env PORTOLAN="${CARGO_TARGET_DIR:-target}/debug/portolan" "${CARGO_TARGET_DIR:-target}/debug/front" 6 20

echo
echo "what ran:"
printf '  %s\n' "${ran[@]}"
