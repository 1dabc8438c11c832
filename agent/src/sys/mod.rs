//! What touches the kernel directly: processes, namespaces, links. The layer below every other that touches anything.
//!
//! Nothing here decides; nothing here knows what an attachment is.

#[cfg(feature = "daemon")]
pub mod asking;
#[cfg(feature = "daemon")]
pub mod bpf;
pub mod checksum;
#[cfg(feature = "daemon")]
pub mod clock;
#[cfg(feature = "daemon")]
pub mod conf_files;
#[cfg(feature = "daemon")]
pub mod device_files;
pub mod exec;
pub mod files;
#[cfg(feature = "daemon")]
pub mod link_details;
#[cfg(feature = "daemon")]
pub mod link_watch;
#[cfg(feature = "daemon")]
pub mod links;
#[cfg(feature = "daemon")]
pub mod memory;
#[cfg(feature = "daemon")]
pub mod mounts;
#[cfg(feature = "daemon")]
mod netlink;
#[cfg(feature = "daemon")]
pub mod netns;
#[cfg(feature = "daemon")]
pub mod packet;
#[cfg(feature = "daemon")]
pub mod process;
#[cfg(feature = "daemon")]
pub mod qdisc;
#[cfg(feature = "daemon")]
pub mod revert;
#[cfg(feature = "daemon")]
pub mod rooted;
#[cfg(feature = "daemon")]
pub mod routes;
#[cfg(feature = "daemon")]
pub mod survey;
#[cfg(feature = "daemon")]
pub mod terminal;
pub mod unix_socket;
#[cfg(feature = "daemon")]
pub mod watch;
