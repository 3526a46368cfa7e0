<<<<<<< HEAD
# Every target does its own set-up. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test bench fmt lint build setup servers

SERVERS := .tools/servers
export NATS_SERVER ?= $(CURDIR)/$(SERVERS)/2.10.26/nats-server
# Prometheus that is installed comes before the one that set-up has fetched.
export PATH := $(PATH):$(CURDIR)/.tools/prometheus/usr/bin

help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | while IFS='|' read -r name what; do printf 'make %-8s %s\n' "$$name" "$$what"; done

demo: servers ## Six real servers in three regions with agents; stalls a route and shows how it is found and healed
	@cargo build --quiet --features lab --bins
	@tools/demo.sh

test: setup ## All tests, against real servers of three versions (cargo-nextest where it is installed)
	@tools/test.sh

bench: servers ## Benchmarks
	@cargo bench --quiet --features lab

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
=======
# Figures of docs/measured.md. Servers come from tools/servers.sh.
SERVER ?= .tools/servers/2.15.1/nats-server
ROWS ?= 200@1s 900@1800ms 900@1s
SPAN ?= 60s

.PHONY: bench-cost bench-core

# What one agent costs among simulated sources: CPU, memory, /metrics.
bench-cost:
	cargo build --release --features lab --bins
	target/release/watchdog-lab cost --server $(SERVER) --span $(SPAN) $(ROWS)

# What the pure core costs.
bench-core:
	cargo bench --bench core
>>>>>>> srv
