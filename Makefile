# The commands of this repository. `make` alone says what there is.

CARGO ?= cargo

.PHONY: help setup build demo test matrix check fmt lint deny tidy bench soak fuzz names front

help: ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: ## install the Debian packages and cargo tools that are missing, nothing else
	@scripts/setup.sh

build: ## build the binary and every test
	$(CARGO) build --locked --workspace --all-targets

demo: ## a three-node cluster on this machine, and what a Service does in it
	@scripts/setup.sh demo
	$(CARGO) build --locked --release --package portolan
	@scripts/demo.sh

test: ## everything that must hold before a change lands (CI runs this)
	@scripts/test.sh

matrix: ## every scenario in every mode on the real kernel
	@scripts/setup.sh
	$(CARGO) test --locked --package portolan-testkit --test kernel

fmt: ## format the code
	$(CARGO) fmt --all

check: lint deny tidy ## the checks that run nothing

lint: ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

deny: ## licences, bans and sources of the dependencies
	$(CARGO) deny --locked check licenses bans sources

tidy: ## the laws of ARCHITECTURE.md
	$(CARGO) xtask tidy

bench: ## measure, all or ONLY="a part"; PEER_KUBE_PROXY=path, PEER_HAPROXY=path, PEER_NGINX=path and PEER_COREDNS=path measure these beside it
	@scripts/setup.sh bench
	$(CARGO) build --locked --release --package portolan --package portolan-testkit --bin portolan --bin bench
	"$${CARGO_TARGET_DIR:-target}/release/bench" $(if $(ONLY),--only "$(ONLY)")

fuzz: ## every fuzz target for a minute, or for SECONDS_EACH
	@scripts/fuzz.sh

soak: ## ten minutes of rolling updates under load, hung processes and a node that is cut off
	@scripts/setup.sh demo
	$(CARGO) build --locked --release --package portolan
	$(CARGO) run --locked --package portolan-testkit --bin soak

names: ## long runs of names: answerers are killed, ten minutes of changes, an hour of random questions
	@scripts/setup.sh demo
	$(CARGO) build --locked --release --package portolan --package portolan-testkit --bin portolan --bin names
	"$${CARGO_TARGET_DIR:-target}/release/names" all

front: ## five minutes of changes of endpoints and routes under full load: no request fails, no WebSocket ends
	@scripts/setup.sh demo
	$(CARGO) build --locked --release --package portolan --package portolan-testkit --bin portolan --bin front
	"$${CARGO_TARGET_DIR:-target}/release/front"
