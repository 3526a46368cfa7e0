//! The real Prometheus and promtool, where they are installed.
