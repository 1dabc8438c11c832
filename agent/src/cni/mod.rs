//! What CNI says: versions, configurations, requests and results, in every version from 0.1.0 to 1.1.0.
//!
//! Nothing here runs a plugin, reads a file or knows a pod's annotations. The shim is built with this module, so it
//! uses std, serde and serde_json alone.

pub mod cidr;
pub mod config;
mod fields;
#[cfg(test)]
pub(crate) mod mutation;
pub mod object;
pub mod passthru;
pub mod request;
pub mod result;
pub mod secrets;
pub mod version;

pub use cidr::Cidr;
pub use config::{NetworkConfig, PluginConfig};
pub use object::RawObject;
pub use request::{Args, Command, Environment, Request};
pub use result::{CniResult, Dns, Interface, IpConfig, Route};
pub use version::Version;
