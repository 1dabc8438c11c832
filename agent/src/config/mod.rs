//! What the operator configured: `daemon-config.json`, and the configuration a request brings along.
//!
//! Keys match in any case, `null` leaves a default, an unknown key is a warning, a wrong type an error that names key,
//! value and what fits. Nothing here reads a file.

mod certificate;
mod datapath;
mod delegation;
mod generator;
pub mod keys;
mod log;
mod reflect;
pub mod schema;
mod section;
mod settings;
mod words;

pub use certificate::NodeCertificate;
pub use datapath::{
    AttachMode, CustomProtocol, DatapathMode, DatapathSettings, Guard, MOST_CUSTOM, Mark, PROTOCOLS, RELAYED,
};
pub use delegation::{Delegation, NetConf, Policy, RelayPolicy};
pub use generator::Generator;
pub use log::{LogLevel, LogSettings};
pub use reflect::{Election, REFLECTED, ReflectSettings};
pub use section::{ConfigError, distance};
pub use settings::{HostExec, Origin, Settings};
