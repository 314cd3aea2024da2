//! Ports that are free, and stay free while the process behind them restarts.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context as _;
use rand::Rng as _;

/// Lowest port that is handed out; below are the ports that people give names to.
const FLOOR: u16 = 12_000;

/// Where outgoing connections take theirs, when the kernel does not tell (its own default).
const DEFAULT_EPHEMERAL: u16 = 32_768;

/// A loopback port on which no process listens.
///
/// It lies below the range that outgoing connections are given. A port from that range,
/// which binding port 0 would return, can be taken while its server restarts; worse, a
/// client that keeps dialling it may be given the very same port as its own and then
/// connects to itself.
///
/// # Errors
/// If hardly any port is free.
pub fn free_port() -> anyhow::Result<u16> {
    let ceiling = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|&low| low > FLOOR + 1_000)
        .unwrap_or(DEFAULT_EPHEMERAL);
    let mut rng = rand::rng();
    (0..1_000)
        .map(|_| rng.random_range(FLOOR..ceiling))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .context("no free loopback port in 1,000 tries")
}
