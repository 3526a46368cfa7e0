//! Real nats-servers in regions on this machine, with faults on demand.
