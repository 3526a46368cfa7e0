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
