//! What the operator sees, as stable documents: one file per kind.
//!
//! Reads memory and maps; asks nobody else. Texts are as they came: whoever prints them escapes them.

mod agent;
mod attachments;
mod delegates;
mod events;
mod figures;
mod networks;
mod parents;
mod ping;
mod programs;
mod refusals;
mod relay;
mod services;
mod status;
mod times;
mod traces;
mod why;

use serde::Serialize;

/// What is true of the datapath.
pub use crate::datapath::Facts as DatapathFacts;
/// Both directions of an attachment, as the maps have them.
pub use crate::datapath::Interface;
/// In which state an attachment is, and who made it.
pub use crate::records::{Origin, State};
pub use agent::{ConfigView, SettingView, VersionView, config, version};
pub use attachments::{AttachmentView, CountedView, PluginView, RouteView, Traffic, attachments, counted};
pub use delegates::{DelegateView, ErrorView, delegates};
pub use events::{RelayEvent, RelayEvents, relay_events};
pub(in crate::ops) use events::{boot_time, whose};
pub use figures::{Figures, Fill, Looks, figures};
pub use networks::{NetworkView, networks};
pub use parents::{ParentListView, parents};
pub use ping::{AnswerView, PingView, ping, probe_question};
pub use programs::{PlacedProgramView, programs};
pub use refusals::{RefusalView, refusals};
pub use relay::{FramesView, GuardFramesView, MemberView, RelayView, relay};
pub use services::{ServiceView, services};
pub use status::{DatapathView, Health, Line, ParentView, ProgramView, RuntimeConfView, StatusView, status};
pub use traces::{DeliveryView, TakenView, TraceList, TraceView, trace_document, traces};
pub use why::{ChainStepView, ChainView, WhyView, why};

/// The `apiVersion` of every document.
pub const API_VERSION: &str = "multus-ebpf.io/v1";

/// A document: `apiVersion`, `kind`, `items`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// [`API_VERSION`].
    pub api_version: &'static str,
    /// What the items are.
    pub kind: &'static str,
    /// The items.
    pub items: Vec<T>,
}

impl<T> List<T> {
    fn of(kind: &'static str, items: Vec<T>) -> Self {
        Self { api_version: API_VERSION, kind, items }
    }
}
