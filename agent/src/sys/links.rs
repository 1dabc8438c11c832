//! What links there are and what they are like, through rtnetlink; and the removal of one.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, MacVlanMode,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{Handle, new_connection};
use thiserror::Error;

use super::netns::{self, NetnsError};

/// A question to the kernel that was not answered.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No netlink socket.
    #[error("open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("list links: {0}")]
    Refused(#[source] rtnetlink::Error),
    /// The kernel gave no answer.
    #[error("ask for a link: {0}")]
    Unanswered(#[source] io::Error),
}

/// A link, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Index in its namespace.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Ethernet address; zero where the link has none.
    pub mac: [u8; 6],
    /// Kind, as `ip -d link` names it; empty for a physical one.
    pub kind: String,
    /// Index of the link below, and whether that lives in another namespace than this one.
    pub below: Option<Below>,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// Administratively up?
    pub up: bool,
    /// Is there something at the other end (`IFF_LOWER_UP`)?
    pub carrier: bool,
    /// A macvlan in bridge mode: it and its siblings of that mode hear each other?
    pub bridged: bool,
}

/// The link below a macvlan, or a veth's other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Below {
    /// Index in its own namespace.
    pub ifindex: u32,
    /// Is that another namespace (`IFLA_LINK_NETNSID` present)?
    pub elsewhere: bool,
}

/// The link `name`, in the namespace at `netns` or, without one, in ours.
pub async fn find(netns: Option<&Path>, name: &str) -> Result<Option<Facts>, LinkError> {
    let name = name.to_owned();
    let found = if let Some(path) = netns {
        netns::away(path, move || find_here(&name)).await?
    } else {
        let asked = tokio::task::spawn_blocking(move || find_here(&name)).await;
        asked.unwrap_or_else(|error| Err(io::Error::other(error)))
    };
    found.map_err(LinkError::Unanswered)
}

/// The links with these names in the namespace at `netns`, which is entered once; in their order.
pub async fn find_all(netns: &Path, names: Vec<String>) -> Result<Vec<Option<Facts>>, LinkError> {
    let found = netns::away(netns, move || names.iter().map(|name| find_here(name)).collect::<io::Result<_>>()).await?;
    found.map_err(LinkError::Unanswered)
}

/// The link `name` in the calling thread's namespace; blocks for one answer of the kernel.
///
/// # Errors
/// The kernel gives no socket, or an answer that is none.
pub fn find_here(name: &str) -> io::Result<Option<Facts>> {
    let mut asked = LinkMessage::default();
    asked.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Ok(ask_here(asked)?.as_ref().map(facts))
}

/// The numbers of the XDP programs on the link with index `ifindex` in the calling thread's namespace; none where there is
/// no such link. Blocks for one answer of the kernel.
///
/// # Errors
/// As [`find_here`].
pub fn xdp_programs_here(ifindex: u32) -> io::Result<Vec<u32>> {
    let mut asked = LinkMessage::default();
    asked.header.index = ifindex;
    let link = ask_here(asked)?;
    let attributes = link.iter().flat_map(|link| &link.attributes);
    let xdp = attributes.filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    let number = |xdp: &LinkXdp| match xdp {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    };
    Ok(xdp.flatten().filter_map(number).collect())
}

fn ask_here(asked: LinkMessage) -> io::Result<Option<LinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(asked));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (datagram, _kernel) = socket.recv_from_full()?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram).map_err(io::Error::other)?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link)),
        NetlinkPayload::Error(refusal) if is_absence(refusal.raw_code()) => Ok(None),
        NetlinkPayload::Error(refusal) => Err(refusal.to_io()),
        _ => Err(io::Error::other("the kernel answered something else")),
    }
}

/// The link with index `ifindex` in our namespace.
pub async fn by_index(ifindex: u32) -> Result<Option<Facts>, LinkError> {
    let kernel = connect(None)?;
    one(kernel.handle.link().get().match_index(ifindex).execute()).await
}

/// Removes the link `name` from the namespace at `netns`; true if there was one.
pub async fn remove(netns: &Path, name: &str) -> Result<bool, LinkError> {
    let kernel = connect(Some(netns))?;
    let Some(link) = one(kernel.handle.link().get().match_name(name).execute()).await? else { return Ok(false) };
    kernel.handle.link().del(link.ifindex).execute().await.map_err(LinkError::Refused)?;
    Ok(true)
}

/// The addresses of link `ifindex` with their prefix lengths, in the namespace at `netns`.
pub async fn addresses(netns: &Path, ifindex: u32) -> Result<Vec<(IpAddr, u8)>, LinkError> {
    addresses_of(connect(Some(netns))?, ifindex).await
}

/// The addresses of link `ifindex` of our own namespace with their prefix lengths.
pub async fn addresses_here(ifindex: u32) -> Result<Vec<(IpAddr, u8)>, LinkError> {
    addresses_of(connect(None)?, ifindex).await
}

async fn addresses_of(kernel: Kernel, ifindex: u32) -> Result<Vec<(IpAddr, u8)>, LinkError> {
    let messages = kernel.handle.address().get().set_link_index_filter(ifindex).execute();
    let messages: Vec<_> = messages.try_collect().await.map_err(LinkError::Refused)?;
    let address = |attributes: &[AddressAttribute]| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    Ok(messages.iter().filter_map(|m| Some((address(&m.attributes)?, m.header.prefix_len))).collect())
}

/// A connection to the kernel of one namespace. The socket stays in it wherever it is used from.
pub(super) fn connect(netns: Option<&Path>) -> Result<Kernel, LinkError> {
    let opened = match netns {
        None => new_connection(),
        Some(path) => {
            let runtime = tokio::runtime::Handle::current();
            netns::inside(path, || {
                let _inside_runtime = runtime.enter();
                new_connection()
            })?
        }
    };
    let (connection, handle, _) = opened.map_err(LinkError::Socket)?;
    Ok(Kernel { handle, talk: tokio::spawn(connection) })
}

/// A connection to one namespace's kernel. Its socket would keep the namespace alive, so it ends with its owner.
pub(super) struct Kernel {
    pub(super) handle: Handle,
    talk: tokio::task::JoinHandle<()>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.talk.abort();
    }
}

async fn one(
    messages: impl futures_util::Stream<Item = Result<LinkMessage, rtnetlink::Error>>,
) -> Result<Option<Facts>, LinkError> {
    match std::pin::pin!(messages).next().await {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some(facts(&message))),
        Some(Err(rtnetlink::Error::NetlinkError(refusal))) if is_absence(refusal.raw_code()) => Ok(None),
        Some(Err(error)) => Err(LinkError::Refused(error)),
    }
}

fn is_absence(code: i32) -> bool {
    [libc::ENODEV, libc::ENOENT].contains(&-code)
}

fn facts(message: &LinkMessage) -> Facts {
    let mut facts = Facts {
        ifindex: message.header.index,
        name: String::new(),
        mac: [0; 6],
        kind: String::new(),
        below: None,
        master: None,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        bridged: false,
    };
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => facts.name.clone_from(name),
            LinkAttribute::Address(bytes) => facts.mac = bytes.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Link(ifindex) => facts.below = Some(Below { ifindex: *ifindex, elsewhere: false }),
            LinkAttribute::Controller(ifindex) => facts.master = Some(*ifindex),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                facts.kind = kind(infos);
                facts.bridged = infos.iter().any(is_bridge_mode);
            }
            _ => {}
        }
    }
    facts.below = facts.below.map(|below| Below { elsewhere, ..below });
    facts
}

fn is_bridge_mode(info: &LinkInfo) -> bool {
    let LinkInfo::Data(InfoData::MacVlan(data)) = info else { return false };
    data.iter().any(|each| matches!(each, InfoMacVlan::Mode(MacVlanMode::Bridge)))
}

fn kind(infos: &[LinkInfo]) -> String {
    infos
        .iter()
        .find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(InfoKind::to_string(kind)),
            _ => None,
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_found_and_others_are_not() {
        let lo = find(None, "lo").await.unwrap().unwrap();
        assert_eq!((lo.ifindex, lo.name.as_str(), lo.mac), (1, "lo", [0; 6]));
        assert_eq!(find(None, "nonesuch0").await.unwrap(), None);
        assert_eq!(by_index(1).await.unwrap().unwrap().name, "lo");
        assert_eq!(by_index(999_999).await.unwrap(), None);
        assert_eq!(xdp_programs_here(1).unwrap(), xdp_programs_here(999_999).unwrap());
        assert_eq!((find_here("lo").unwrap(), find_here("nonesuch0").unwrap()), (Some(lo), None));
    }
}
