//! Which attachments a pod gets and what each delegate is told: everything that is decided, and nothing that is done.
//!
//! Pure functions over words. Nothing here performs I/O, looks at a clock or at the process's environment.

mod attachment;
mod cases;
pub mod conflicts;
pub mod delegates;
pub mod device_info;
pub mod host;
pub mod host_access;
pub mod hotplug;
pub mod ipam;
pub mod isolation;
mod item;
pub mod judged;
pub mod master;
pub mod migrate;
mod network;
pub mod reflect;
pub mod relay;
pub mod runtime_conf;
pub mod selection;
pub mod status;
pub mod stdin;
mod wishes;

pub use attachment::{Attachment, Plan, Warning, parent_in_question};
pub use delegates::{Wanted, draft, plan};
pub use network::KnownNetwork;
pub use selection::{Choice, Selection};
pub use wishes::Demand;
