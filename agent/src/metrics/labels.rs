//! Which labels do the families have whose handles are held?

use prometheus_client::encoding::EncodeLabelSet;

/// `multus_cni_*` labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The verb, upper case.
    pub verb: &'static str,
    /// The CNI error code; 0 on success.
    pub code: u32,
}

/// `multus_cni_stage_duration_seconds` labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabels {
    /// The verb, upper case.
    pub verb: &'static str,
    /// The stage.
    pub stage: &'static str,
}

/// `multus_delegate_*` labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DelegateLabels {
    /// The plugin's type; `other` beyond the first 64 that were seen.
    pub r#type: String,
    /// The verb it was called with.
    pub verb: &'static str,
    /// Who ran it: `shim` or `host`.
    pub runner: &'static str,
}

/// `multus_server_request_total` labels, as upstream has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServerLabels {
    /// The path, `NotFound` for others.
    pub handler: &'static str,
    /// The HTTP status.
    pub code: u16,
    /// The HTTP method.
    pub method: &'static str,
}

/// `multus_datapath_repairs_total` labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RepairLabels {
    /// `parent` or `pod`.
    pub object: &'static str,
    /// What somebody did to it.
    pub reason: &'static str,
}

/// `multus_admission_*` labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    /// `attach` or `other`.
    pub pool: &'static str,
}

/// Labels of what can end in several ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// How it ended.
    pub outcome: &'static str,
}

/// `multus_api_requests_total` labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiLabels {
    /// What was asked.
    pub verb: &'static str,
    /// Of which resource.
    pub resource: &'static str,
    /// The HTTP status; 0 without an answer.
    pub code: u16,
}

/// `multus_api_request_duration_seconds` labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiTimeLabels {
    /// What was asked.
    pub verb: &'static str,
    /// Of which resource.
    pub resource: &'static str,
}

/// `multus_shim_requests_total` labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShimLabels {
    /// What the plugin calls itself; `other` beyond the first 8 that were seen.
    pub version: String,
}
