# Every target does its own set-up. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test bench bench-core bench-cost bench-heal bench-sys simulate score fmt lint build setup servers

SERVERS := .tools/servers
ROWS ?= 200@1s 900@1800ms 900@1s
SPAN ?= 60s
RUNS ?= 300
# Without the agent: a minute instead of five.
SIMULATOR := cargo build --quiet --profile sim --bin watchdog --no-default-features
export NATS_SERVER ?= $(CURDIR)/$(SERVERS)/2.10.26/nats-server
# Prometheus that is installed comes before the one that set-up has fetched.
export PATH := $(PATH):$(CURDIR)/.tools/prometheus/usr/bin

help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | while IFS='|' read -r name what; do printf 'make %-8s %s\n' "$$name" "$$what"; done

demo: servers ## Six real servers in three regions with agents; stalls a route and shows how it is found and healed
	@cargo build --quiet --features lab --bins
	@if [ -t 1 ]; then stay=--stay; fi; $${CARGO_TARGET_DIR:-target}/debug/watchdog-lab demo --server $(SERVERS)/2.15.1/nats-server $$stay

test: setup ## All tests, against real servers of three versions (cargo-nextest where it is installed)
	@tools/test.sh

bench: bench-core bench-cost bench-heal bench-sys ## All figures of docs/measured.md (an hour)

bench-core: ## What the pure core costs
	@cargo bench --quiet --features lab

bench-cost: servers ## What one agent costs among 200 and 900 simulated hosts
	@cargo build --quiet --release --features lab --bins
	@target/release/watchdog-lab cost --server $(SERVERS)/2.15.1/nats-server --span $(SPAN) $(ROWS)

bench-heal: servers ## From a stall to its verdict and to messages that flow again, on real servers
	@cargo build --quiet --release --features lab --bins
	@tools/heal-figures.sh

bench-sys: servers ## System traffic of real meshes of 10, 20 and 40 servers beside the model; what a storm costs an agent
	@cargo build --quiet --release --features lab --bins
	@tools/sys-figures.sh

simulate: ## Seeds of mixed faults in simulated fleets: make simulate RUNS=10000
	@$(SIMULATOR)
	@$${CARGO_TARGET_DIR:-target}/sim/watchdog simulate tests/scenarios/mixed.toml --runs $(RUNS)

score: ## The table of docs/simulation.md: every incident under four policies
	@$(SIMULATOR)
	@$${CARGO_TARGET_DIR:-target}/sim/watchdog simulate tests/scenarios/catalogue --score

fmt: ## Formats the code
	@cargo fmt

lint: ## Format, lints and documentation, as CI demands them
	@cargo fmt --check
	@cargo clippy --quiet --all-targets --all-features -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features

build: ## The release binary, target/release/watchdog
	@cargo build --release --bin watchdog

servers:
	@tools/servers.sh

setup: servers
	@tools/setup-tests.sh
