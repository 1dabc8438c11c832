//! Which agent this is, and with which settings it runs, each with where it came from.

use multus_ebpf_common::LAYOUT;
use serde::Serialize;
use serde_json::Value;

use super::API_VERSION;
use crate::config::keys::{self, Key};
use crate::ops::context::Context;
use crate::wire::PROTOCOL;

/// Which agent this is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct VersionView {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub version: &'static str,
    pub protocol: u32,
    pub layout: u32,
}

/// Which agent this is.
pub fn version() -> VersionView {
    VersionView {
        api_version: API_VERSION,
        kind: "Version",
        version: env!("CARGO_PKG_VERSION"),
        protocol: PROTOCOL,
        layout: LAYOUT,
    }
}

/// The settings that hold.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ConfigView {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub file: Option<String>,
    pub warnings: Vec<String>,
    pub settings: Vec<SettingView>,
}

/// One setting.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct SettingView {
    pub key: &'static str,
    pub value: Value,
    pub default: Value,
    pub from: &'static str,
}

/// The settings that hold. Of embedded networks only the names are shown: what is in them may be secret.
pub fn config(context: &Context) -> ConfigView {
    let origin = &context.settings.origin;
    ConfigView {
        api_version: API_VERSION,
        kind: "Config",
        file: origin.file.clone(),
        warnings: origin.warnings.clone(),
        settings: keys::all().map(|key| setting(context, key)).collect(),
    }
}

fn setting(context: &Context, key: &Key) -> SettingView {
    let settings = &context.settings;
    let (key_name, default) = (key.name, key.default_value());
    let of = |value, from| SettingView { key: key_name, value, default: default.clone(), from };
    if settings.origin.has(key.name) {
        return of((key.now)(settings), "file");
    }
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match key.name {
        "nodeName" => environment("MULTUS_NODE_NAME").map(|name| of(name.into(), "environment")),
        // The cluster around the agent is known by its environment, and not asked where a folder stands in for it.
        "kubeconfig" if settings.objects.is_none() => {
            environment("KUBERNETES_SERVICE_HOST").map(|_| of("in-cluster".into(), "environment"))
        }
        _ => None,
    }
    .unwrap_or_else(|| of((key.now)(settings), "default"))
}
