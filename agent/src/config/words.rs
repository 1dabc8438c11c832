//! How the little languages inside configuration values are read: durations of Go, addresses to listen on, versions.
//!
//! Nothing here knows a key.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::cni::Version;

/// A duration as Go writes it: `120s`, `1m30s`, `1.5h`, `250ms`; `None` when it is not one or negative.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// `host:port`; without a host all addresses of both families. The host is an address, not a name.
pub(super) fn listen_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0).map(every_address),
        None => text.parse().ok(),
    }
}

/// Every address of both families.
pub(super) fn every_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// The name of a host, without a port.
pub(super) fn host(text: &str) -> Option<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!text.is_empty() && text.len() <= 253 && text.chars().all(is_name)).then(|| text.to_owned())
}

/// A `cniVersion`, and whether it was clamped because it is newer than any there is.
pub(super) fn version(text: &str) -> Option<(Version, bool)> {
    Version::clamped(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        let table = [
            ("120s", Some(120_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("250ms", Some(250)),
            ("2h0m1s", Some(7_201_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("120", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            (".5s", None),
            ("1.2.3s", None),
            ("99999999999999999999999h", None),
        ];
        for (text, millis) in table {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn versions_above_the_newest_are_clamped() {
        for (text, wanted) in [
            ("0.3.1", Some((Version::V0_3_1, false))),
            ("1.1.0", Some((Version::V1_1_0, false))),
            ("1.2.0", Some((Version::V1_1_0, true))),
            ("2.0.0", Some((Version::V1_1_0, true))),
            ("0.9.0", None),
            ("1.2", None),
            ("x", None),
        ] {
            assert_eq!(version(text), wanted, "{text}");
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, wanted) in [
            ("127.0.0.1:9090", Some("127.0.0.1:9090")),
            ("[::1]:9090", Some("[::1]:9090")),
            (":9090", Some("[::]:9090")),
            ("localhost:9090", None),
            ("9090", None),
            (":0", None),
            (":x", None),
        ] {
            assert_eq!(listen_address(text), wanted.map(|text| text.parse().unwrap()), "{text}");
        }
    }
}
