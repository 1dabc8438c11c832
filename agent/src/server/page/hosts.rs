//! By which names may the page be asked for? An address, `localhost`, the node's name, and what is configured.
//!
//! A browser sends the name that it believes to speak to. A site that points its own name to our address (DNS
//! rebinding) would read the page with its visitor's browser; its name is none of these. Resolves nothing.

use std::net::IpAddr;

use crate::fault::quote;

/// Names besides addresses.
#[derive(Debug)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    /// `localhost`, the node's name where it is known, and those of `pageHosts`.
    pub(super) fn new(node: Option<&str>, configured: &[String]) -> Self {
        let own = std::iter::once("localhost").chain(node).map(str::to_owned);
        Self(own.chain(configured.iter().cloned()).collect())
    }

    /// Checks a request's `Host`; the refusal is a sentence for whoever asked.
    pub(super) fn admit(&self, host: Option<&str>) -> Result<(), String> {
        let Some(host) = host else { return Err("the request names no host".to_owned()) };
        let name = without_port(host);
        let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        if is_address || self.0.iter().any(|known| known.eq_ignore_ascii_case(name.trim_end_matches('.'))) {
            return Ok(());
        }
        Err(format!(
            "this page is not known as {}: ask for it by its address, as localhost or by the node's name, or add the name \
             to pageHosts in daemon-config.json",
            quote(name)
        ))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_choose_are_refused() {
        let hosts = Hosts::new(Some("node-7"), &["multus.home.arpa".to_owned()]);
        for host in [
            "127.0.0.1:9092",
            "127.0.0.1",
            "[::1]:9092",
            "[fe80::1]",
            "localhost:80",
            "LOCALHOST",
            "node-7:9092",
            "node-7.",
            "multus.home.arpa",
        ] {
            assert_eq!(hosts.admit(Some(host)), Ok(()), "{host}");
        }
        for host in
            ["rebind.example:9092", "127.0.0.1.example", "localhost.example", "", ":80", "node-77", "1::2::3", "a:b"]
        {
            let refusal = hosts.admit(Some(host)).unwrap_err();
            assert!(refusal.contains("pageHosts"), "{host}: {refusal}");
        }
        assert!(hosts.admit(None).is_err());
        assert!(Hosts::new(None, &[]).admit(Some("node-7")).is_err());
    }
}
