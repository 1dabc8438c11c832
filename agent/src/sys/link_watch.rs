//! What is done to the links of our own network namespace, and to what hangs on them? rtnetlink's groups, as questions
//! that can be awaited.
//!
//! Says which link something happened to and roughly what; whoever asks looks for himself. Other namespaces are not
//! heard. Events can be lost, which is said ([`Change::Lost`]): then everything may have changed.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::netlink::{Message, messages};

/// `RTMGRP_LINK` and `RTMGRP_TC` of linux/rtnetlink.h.
const GROUPS: u32 = 1 | 8;

/// Something that happened. The numbers are interface indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The link came, or something of it changed: name, MAC, MTU, flags.
    Link(u32),
    /// The link was removed, or left for another namespace.
    Gone(u32),
    /// A qdisc or filter on it came, changed or went.
    Traffic(u32),
    /// The kernel had more to say than it could keep for us (`ENOBUFS`, netlink(7)).
    Lost,
}

/// A subscription to the kernel's news; it ends with this value.
#[derive(Debug)]
pub struct LinkWatch {
    socket: AsyncFd<Subscribed>,
}

/// The socket, as tokio wants it.
#[derive(Debug)]
struct Subscribed(Socket);

impl AsRawFd for Subscribed {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl LinkWatch {
    /// Subscribes, in the calling thread's namespace; must be made within a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        // SAFETY: the socket stays open and the same for as long as `AsyncFd` has it, which is its only owner.
        Ok(Self { socket: unsafe { AsyncFd::register_with_interest(Subscribed(socket), Interest::READABLE) }? })
    }

    /// Waits for news and takes what one datagram says; at least one change.
    ///
    /// # Errors
    /// The socket does not work any more.
    pub async fn changes(&self) -> io::Result<Vec<Change>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| socket.get_ref().0.recv_from_full()) {
                Err(_nothing_yet) => {}
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(vec![Change::Lost]),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok((datagram, _kernel))) => {
                    let changes: Vec<Change> = messages(&datagram).filter_map(change).collect();
                    if !changes.is_empty() {
                        return Ok(changes);
                    }
                }
            }
        }
    }
}

/// What a message means; both `ifinfomsg` and `tcmsg` have the index in the second word behind the header.
fn change(message: Message<'_>) -> Option<Change> {
    let ifindex = message.word(20)?;
    match message.kind {
        libc::RTM_NEWLINK => Some(Change::Link(ifindex)),
        libc::RTM_DELLINK => Some(Change::Gone(ifindex)),
        libc::RTM_NEWQDISC | libc::RTM_DELQDISC | libc::RTM_NEWTFILTER | libc::RTM_DELTFILTER => {
            Some(Change::Traffic(ifindex))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::sys::netns;

    /// A namespace that goes with the value.
    struct Room(String);

    impl Room {
        fn new() -> Self {
            let room = Self(format!("mwatch-{}", std::process::id()));
            ip(&["netns", "add", &room.0]);
            room
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _gone = Command::new("ip").args(["netns", "del", &self.0]).output();
        }
    }

    fn ip(arguments: &[&str]) {
        assert!(Command::new("ip").args(arguments).status().unwrap().success(), "{arguments:?}");
    }

    /// Waits until `wanted` has been said.
    async fn hears(watch: &LinkWatch, wanted: Change) {
        let heard = async { while !watch.changes().await.unwrap().contains(&wanted) {} };
        tokio::time::timeout(Duration::from_secs(5), heard).await.unwrap_or_else(|_| panic!("{wanted:?} was not said"));
    }

    #[tokio::test]
    async fn what_is_done_to_links_is_heard() {
        let room = Room::new();
        let path = std::path::Path::new("/run/netns").join(&room.0);
        let runtime = tokio::runtime::Handle::current();
        let watch = netns::inside(&path, || {
            let _inside_runtime = runtime.enter();
            LinkWatch::new().unwrap()
        });
        let watch = watch.unwrap();
        let on = |arguments: &str| ip(&[&["-n", &room.0][..], &arguments.split(' ').collect::<Vec<_>>()].concat());
        let tc = |arguments: &str| {
            let done = Command::new("tc").args(["-n", &room.0]).args(arguments.split(' ')).status();
            assert!(done.unwrap().success(), "{arguments}");
        };
        on("link add wire0 type veth peer name wire1");
        let index = netns::inside(&path, || netns::interface_index("wire0")).unwrap().unwrap();
        hears(&watch, Change::Link(index)).await;
        on("link set wire0 address 02:00:00:00:00:07");
        hears(&watch, Change::Link(index)).await;
        on("link set wire0 name wire2");
        hears(&watch, Change::Link(index)).await;
        tc("qdisc add dev wire2 clsact");
        hears(&watch, Change::Traffic(index)).await;
        tc("qdisc del dev wire2 clsact");
        hears(&watch, Change::Traffic(index)).await;
        on("link del wire2");
        hears(&watch, Change::Gone(index)).await;
        // More than the socket can keep, before anybody takes any of it.
        watch.socket.get_ref().0.set_rx_buf_sz(1).unwrap();
        let many: Vec<String> = (1500..1600).map(|mtu| format!("link set lo mtu {mtu}\n")).collect();
        let file = std::env::temp_dir().join(&room.0);
        std::fs::write(&file, many.concat()).unwrap();
        ip(&["-n", &room.0, "-batch", &file.to_string_lossy()]);
        std::fs::remove_file(&file).unwrap();
        hears(&watch, Change::Lost).await;
    }
}
