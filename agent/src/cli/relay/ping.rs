//! `relay ping`: who answers a harmless question, how quickly and by which way.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::output::{self, Format, cell, safe};
use crate::cli::{Agent, Ending, Show, query};

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent relay ping --parent eth0                       from the node
  multus-agent relay ping --pod home/home-assistant           from inside a pod
  multus-agent relay ping --parent eth0 --protocol ssdp --for 3s

PATH is the way of the answer: `wire` from a device of the link, `relay` brought by the relay, `sibling` from another
pod past it, `itself` from whoever asks, `not_relayed` a pod's answer that the node did not hear.
One probe runs at a time. It asks what every browser of the protocol asks: which types of services there are, and who
has one; or which UPnP devices there are.";

/// What is asked.
#[derive(Debug, Args)]
pub struct Ping {
    /// Where the agent is.
    #[command(flatten)]
    agent: Agent,
    /// How to print it.
    #[command(flatten)]
    show: Show,
    /// On this parent; needed where there are several
    #[arg(long, value_name = "INTERFACE")]
    parent: Option<String>,
    /// From inside this pod; else from the node
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pod: Option<String>,
    /// What to ask: which services there are, or which UPnP devices
    #[arg(long, value_enum, default_value_t = Protocol::Mdns)]
    protocol: Protocol,
    /// How long to wait for answers: 200ms to 10s
    #[arg(long = "for", value_name = "TIME", default_value = "2s", value_parser = time)]
    long: Duration,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// mDNS: every type of service.
    Mdns,
    /// SSDP: every device.
    Ssdp,
}

fn time(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_millis(200), Duration::from_secs(10));
    let time = crate::cli::time(text)?;
    if (least..=most).contains(&time) { Ok(time) } else { Err("write a time from 200ms to 10s".to_owned()) }
}

/// Asks, and prints who answered; exit code 1 if nobody did.
pub fn ping(asked: &Ping) -> Ending {
    let protocol = match asked.protocol {
        Protocol::Mdns => "mdns",
        Protocol::Ssdp => "ssdp",
    };
    let path = query::with(
        "/v1/relay/ping",
        &[
            ("parent", asked.parent.clone()),
            ("pod", asked.pod.clone()),
            ("protocol", Some(protocol.to_owned())),
            ("for", Some(asked.long.as_millis().to_string())),
        ],
    );
    let patience = asked.long + Duration::from_secs(10);
    let document = match query::ask(&asked.agent.socket, "POST", &path, patience) {
        Ok(document) => document,
        Err(ending) => return ending,
    };
    let items = document.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = match asked.show.output {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => items.iter().map(|item| safe(&cell(item, "/mac")) + "\n").collect(),
        Format::Table | Format::Wide if items.is_empty() => nobody(&document),
        Format::Table | Format::Wide => table(items),
    };
    match output::print(&text) {
        Ending::Fine if items.is_empty() => Ending::Problem,
        ending => ending,
    }
}

fn nobody(document: &Value) -> String {
    let of = |pointer| safe(&cell(document, pointer));
    let (protocol, parent, from, sources) = (of("/protocol"), of("/parent"), of("/from"), of("/sources"));
    format!("nobody answered {protocol} on {parent} within {} ms, asked by {from} as {sources}\n", of("/waitedMs"))
}

fn table(items: &[Value]) -> String {
    let pointers = ["/path", "/who", "/milliseconds", "/mac", "/addresses", "/datagrams", "/says"];
    let heads = ["PATH", "WHO", "MS", "MAC", "ADDRESSES", "DATAGRAMS", "SAYS"];
    let row = |item: &Value| pointers.map(|pointer| cell(item, pointer)).to_vec();
    output::table(&heads, items.iter().map(row).collect())
}
