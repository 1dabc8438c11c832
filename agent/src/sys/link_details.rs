//! What is one link like, as `ip -d link` and `ip address` would say it? Through rtnetlink, for people.

use std::net::IpAddr;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use serde::Serialize;

use super::links::{LinkError, connect};

/// A link, in the kernel's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Index in its namespace.
    pub ifindex: u32,
    /// Flags such as UP and PROMISC.
    pub flags: Vec<String>,
    /// Operational state.
    pub state: String,
    /// Hardware address.
    pub address: String,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Queueing discipline.
    pub qdisc: String,
    /// Kind and what is particular to it.
    pub info: Vec<String>,
    /// Index of the link below, and of the namespace that it is in.
    pub below: Option<u32>,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// How many want to hear everything.
    pub promiscuity: u32,
    /// Packets and bytes received and sent, dropped while receiving and sending, and multicast packets received.
    pub counters: [u64; 7],
    /// Addresses with prefix lengths.
    pub addresses: Vec<String>,
}

/// The link `name`, in the namespace at `netns` or, without one, in ours.
///
/// # Errors
/// The namespace cannot be entered, or the kernel refuses to say.
pub async fn details(netns: Option<&Path>, name: &str) -> Result<Option<Details>, LinkError> {
    let kernel = connect(netns)?;
    let links = kernel.handle.link().get().match_name(name.to_owned()).execute();
    let link = match std::pin::pin!(links).next().await {
        Some(Ok(link)) => link,
        None => return Ok(None),
        Some(Err(rtnetlink::Error::NetlinkError(refusal))) if refusal.raw_code() == -libc::ENODEV => return Ok(None),
        Some(Err(error)) => return Err(LinkError::Refused(error)),
    };
    let addresses = kernel.handle.address().get().set_link_index_filter(link.header.index).execute();
    let addresses: Vec<_> = addresses.try_collect().await.map_err(LinkError::Refused)?;
    let address = |attributes: &[AddressAttribute]| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    let text = |address: IpAddr, prefix: u8| format!("{address}/{prefix}");
    let all = addresses.iter().filter_map(|m| Some(text(address(&m.attributes)?, m.header.prefix_len)));
    Ok(Some(Details { addresses: all.collect(), ..told(&link) }))
}

fn told(link: &LinkMessage) -> Details {
    let flags = [
        (LinkFlags::Up, "UP"),
        (LinkFlags::LowerUp, "LOWER_UP"),
        (LinkFlags::Running, "RUNNING"),
        (LinkFlags::Promisc, "PROMISC"),
        (LinkFlags::Allmulti, "ALLMULTI"),
        (LinkFlags::Multicast, "MULTICAST"),
        (LinkFlags::Noarp, "NOARP"),
    ];
    let set = flags.into_iter().filter(|(flag, _)| link.header.flags.contains(*flag));
    let mut details = Details {
        ifindex: link.header.index,
        flags: set.map(|(_, name)| name.to_owned()).collect(),
        ..Details::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::OperState(state) => details.state = format!("{state:?}"),
            LinkAttribute::Address(bytes) => {
                details.address = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
            }
            LinkAttribute::Mtu(mtu) => details.mtu = *mtu,
            LinkAttribute::Qdisc(qdisc) => details.qdisc.clone_from(qdisc),
            LinkAttribute::LinkInfo(infos) => {
                details.info = infos.iter().map(|info| format!("{info:?}").chars().take(512).collect()).collect();
            }
            LinkAttribute::Link(below) => details.below = Some(*below),
            LinkAttribute::Controller(master) => details.master = Some(*master),
            LinkAttribute::Promiscuity(count) => details.promiscuity = *count,
            LinkAttribute::Stats64(s) => {
                details.counters =
                    [s.rx_packets, s.rx_bytes, s.tx_packets, s.tx_bytes, s.rx_dropped, s.tx_dropped, s.multicast];
            }
            _ => {}
        }
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_told() {
        let lo = details(None, "lo").await.unwrap().unwrap();
        assert!(lo.ifindex == 1 && lo.mtu >= 1500, "{lo:?}");
        assert_eq!(details(None, "nonesuch0").await.unwrap(), None);
    }
}
