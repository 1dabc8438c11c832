//! The keys of what is written for the container runtime, and those without effect.

use serde_json::{Value, json};

use super::{Key, Kind, NOTHING, Section, duration, key, text};

/// The keys, section by section.
pub(super) const KEYS: &[Key] = &[
    key(
        "perNodeCertificate.enabled",
        Kind::Flag,
        "false",
        Section::Inert,
        |s| json!(s.node_certificate.is_some()),
        "checked, and without meaning: the agent uses its service account, or the `kubeconfig`. Enabled it is a warning, and needs the next two",
    ),
    key(
        "perNodeCertificate.bootstrapKubeconfig",
        Kind::Path,
        "",
        Section::Inert,
        |s| s.node_certificate.as_ref().map_or(Value::Null, |c| json!(c.bootstrap_kubeconfig)),
        "checked, and without meaning",
    ),
    key(
        "perNodeCertificate.certDir",
        Kind::Path,
        "",
        Section::Inert,
        |s| s.node_certificate.as_ref().map_or(Value::Null, |c| json!(c.cert_dir)),
        "checked, and without meaning",
    ),
    key(
        "perNodeCertificate.certDuration",
        Kind::Duration,
        r#""10m""#,
        Section::Inert,
        |s| s.node_certificate.as_ref().map_or(json!("10m"), |c| duration(c.cert_duration)),
        "checked, and without meaning",
    ),
    key(
        "enablePprof",
        Kind::Flag,
        "false",
        Section::Inert,
        |s| json!(s.enable_pprof),
        "without meaning: there is no Go profiler",
    ),
    key(
        "retryDeleteOnError",
        Kind::Flag,
        "false",
        Section::Inert,
        |s| json!(s.retry_delete_on_error),
        "without meaning: a record that could not be cleaned up is always kept and tried again",
    ),
    key(
        "name",
        Kind::Text,
        "",
        Section::Inert,
        NOTHING,
        "without meaning, as in Multus: the network is called `multus-cni-network`",
    ),
    key(
        "cniConfigDir",
        Kind::Path,
        "`/etc/cni/net.d`",
        Section::Conf,
        |s| if s.generator.on { json!(s.generator.cni_config_dir) } else { Value::Null },
        "folder of the runtime's files, where ours is written; it must be there",
    ),
    key(
        "multusAutoconfigDir",
        Kind::Path,
        "as `cniConfigDir`",
        Section::Conf,
        |s| {
            if s.generator.autoconfig_dir == s.generator.cni_config_dir {
                Value::Null
            } else {
                json!(s.generator.autoconfig_dir)
            }
        },
        "folder in which the cluster's own network, the master, is searched",
    ),
    key(
        "multusMasterCNI",
        Kind::FileName,
        "",
        Section::Conf,
        |s| text(s.generator.master_cni.as_ref()),
        "the master's file name, instead of searching",
    ),
    key(
        "multusConfigFile",
        Kind::WordsOr(&["auto"], "^/"),
        "`auto`",
        Section::Conf,
        |s| if s.generator.on { json!(s.generator.config_file.as_deref().unwrap_or("auto")) } else { Value::Null },
        "`auto`, or your own file: it is copied byte for byte under its own name, also after every change",
    ),
    key(
        "cniVersion",
        Kind::Pattern("^[0-9]+\\.[0-9]+\\.[0-9]+$"),
        r#""0.3.1""#,
        Section::Conf,
        |s| json!(s.generator.cni_version.to_string()),
        "the oldest version the file offers; `cniVersions` goes from there to 1.1.0. Above 1.1.0 it is lowered to 1.1.0, with a warning",
    ),
    key(
        "forceCNIVersion",
        Kind::Flag,
        "false",
        Section::Conf,
        |s| json!(s.generator.force_cni_version),
        "the master's plugins are called with `cniVersion`, whatever their file says. The file is not touched",
    ),
    key(
        "overrideNetworkName",
        Kind::Flag,
        "false",
        Section::Conf,
        |s| json!(s.generator.override_network_name),
        "the file's `name` is the master's instead of `multus-cni-network`",
    ),
    key(
        "capabilities",
        Kind::Flags,
        "{}",
        Section::Conf,
        |s| serde_json::from_str(&s.generator.capabilities.print()).unwrap_or_default(),
        "declared beside those of the master",
    ),
    key(
        "type",
        Kind::FileName,
        r#""multus-shim""#,
        Section::Conf,
        |s| json!(s.generator.plugin),
        "the plugin that the runtime calls",
    ),
    key(
        "daemonSocketDir",
        Kind::Path,
        "`/run/multus/`",
        Section::Conf,
        |s| text(s.generator.daemon_socket_dir.as_ref()),
        "the socket's folder as the host knows it",
    ),
    key(
        "readinessindicatorfile",
        Kind::Path,
        "",
        Section::Conf,
        |s| text(s.readiness_file.as_ref()),
        "a file that the cluster's own network makes when it is ready",
    ),
];
