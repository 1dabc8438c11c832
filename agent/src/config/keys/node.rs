//! The keys about the node: places, running plugins, the log, pods and networks, limits.

use serde_json::{Value, json};

use super::{Key, Kind, NAME, NOTHING, Section, both, duration, key, own, shown, text};
use crate::config::{HostExec, LogLevel};

fn host_exec(value: &HostExec) -> Value {
    json!(match value {
        HostExec::Auto => "auto",
        HostExec::Off => "off",
        HostExec::Namespace(path) => path,
    })
}

/// The keys, section by section.
pub(super) const KEYS: &[Key] = &[
    key(
        "socketDir",
        Kind::Path,
        r#""/run/multus/""#,
        Section::Places,
        |s| json!(s.socket_dir),
        "folder of the agent's socket, `multus.sock`; made with mode 0700 if it is missing",
    ),
    both(
        "binDir",
        Kind::Path,
        r#""/opt/cni/bin""#,
        Section::Places,
        |s| json!(s.delegation.bin_dir.as_deref().unwrap_or("/opt/cni/bin")),
        "folder of the plugins that the agent runs itself (see below)",
    ),
    key("cniBinDir", Kind::Path, "", Section::Places, NOTHING, "the same as `binDir`, which goes before"),
    both(
        "cniDir",
        Kind::Path,
        r#""/var/lib/cni/multus""#,
        Section::Places,
        |s| json!(s.delegation.cni_dir.as_deref().unwrap_or("/var/lib/cni/multus")),
        "`records/`, `networks/` (those last seen), `spool/`, and libcni's result cache in `results/`. Scratch files that Multus left here are read, so that a node can be taken over in place, and removed with their pods",
    ),
    both(
        "confDir",
        Kind::Path,
        r#""/etc/cni/multus/net.d""#,
        Section::Places,
        |s| json!(s.delegation.conf_dir.as_deref().unwrap_or("/etc/cni/multus/net.d")),
        "CNI files that networks with an empty spec, `clusterNetwork` and `defaultNetworks` refer to by name",
    ),
    own(
        "kubeletDir",
        Kind::Path,
        r#""/var/lib/kubelet""#,
        Section::Places,
        |s| json!(s.kubelet_dir),
        "the kubelet's folder; see [devices](#devices)",
    ),
    own(
        "deviceInfoDir",
        Kind::Path,
        r#""/var/run/k8s.cni.cncf.io/devinfo""#,
        Section::Places,
        |s| json!(s.device_info_dir),
        "folder of the device-info files, in it `dp/` and `cni/`",
    ),
    own(
        "hostExec",
        Kind::WordsOr(&["auto", "off"], "^/"),
        r#""auto""#,
        Section::Execution,
        |s| host_exec(&s.host_exec),
        "where the agent may run plugins itself. `auto`: on the host, or in the mount namespace of process 1 where the agent's pod has `hostPID` and the capabilities `SYS_PTRACE`, `SYS_ADMIN` and `SYS_CHROOT` (the host-exec component). `off`: nowhere. A path: in the mount namespace that this file is, for nodes that are containers themselves (`/proc/1/ns/mnt` in a pod with `hostPID`)",
    ),
    key(
        "chrootDir",
        Kind::Path,
        "",
        Section::Execution,
        |s| text(s.chroot_dir.as_ref()),
        "a prefix that is taken off `binDir`: with `/hostroot`, plugins of `/hostroot/opt/cni/bin` are those of `/opt/cni/bin` on the host. Nothing is run in a changed root",
    ),
    key("logToStderr", Kind::Flag, "true", Section::Log, |s| json!(s.log.to_stderr), "write to standard error"),
    key(
        "logFile",
        Kind::Path,
        "",
        Section::Log,
        |s| text(s.log.file.as_ref()),
        "append to this file too; made with mode 0600, and its folder with 0755, where they are missing. One that cannot be opened keeps the agent from starting",
    ),
    key(
        "logLevel",
        Kind::Words(&["panic", "error", "verbose", "debug"]),
        r#""verbose""#,
        Section::Log,
        |s| json!(s.log.level.unwrap_or(LogLevel::Verbose).as_str()),
        "`panic`: only defects of the agent itself; `error`: errors and warnings; `verbose`: what is done; `debug`. In any case; an unknown word is a warning and changes nothing",
    ),
    key(
        "logOptions.maxSize",
        Kind::Number(0, 1 << 20),
        "100",
        Section::Log,
        |s| json!(s.log.max_size),
        "megabytes at which the file is rotated",
    ),
    key(
        "logOptions.maxBackups",
        Kind::Number(0, 1 << 20),
        "5",
        Section::Log,
        |s| json!(s.log.max_backups),
        "backups that are kept; 0: all of them",
    ),
    key(
        "logOptions.maxAge",
        Kind::Number(0, 1 << 20),
        "5",
        Section::Log,
        |s| json!(s.log.max_age),
        "days for which backups are kept; 0: for ever",
    ),
    key("logOptions.compress", Kind::Flag, "true", Section::Log, |s| json!(s.log.compress), "backups become `.gz`"),
    own(
        "objects",
        Kind::Path,
        "",
        Section::Sources,
        |s| text(s.objects.as_ref()),
        "a folder of manifests instead of an API server; goes before `kubeconfig`",
    ),
    key("kubeconfig", Kind::Path, "in-cluster", Section::Sources, |s| text(s.kubeconfig.as_ref()), "a kubeconfig file"),
    own(
        "nodeName",
        Kind::Text,
        "environment `MULTUS_NODE_NAME`",
        Section::Sources,
        |s| text(s.node_name.as_ref()),
        "this node; only its pods are watched. Without it pods are read one by one when the runtime gives no annotations",
    ),
    both(
        "clusterNetwork",
        Kind::Text,
        "",
        Section::Networks,
        |s| text(s.delegation.cluster_network.as_ref()),
        "the network of every pod: a path of a CNI file, or of a folder, of which the first file is taken that [can be a master](#the-conf-for-the-runtime); else the name of a NetworkAttachmentDefinition in `multusNamespace`, or of a CNI network in `confDir`",
    ),
    both(
        "delegates",
        Kind::Configs,
        "",
        Section::Networks,
        |s| {
            s.delegation
                .delegates
                .as_ref()
                .map_or(Value::Null, |all| json!(all.iter().map(|each| each.name.as_str()).collect::<Vec<_>>()))
        },
        "the same, written out; ignored beside `clusterNetwork`",
    ),
    both(
        "defaultNetworks",
        Kind::Texts,
        "[]",
        Section::Networks,
        |s| json!(s.delegation.default_networks.clone().unwrap_or_default()),
        "further networks of every pod outside `systemNamespaces`; only together with `clusterNetwork`",
    ),
    both(
        "systemNamespaces",
        Kind::Texts,
        r#"["kube-system"]"#,
        Section::Networks,
        |s| s.delegation.system_namespaces.as_ref().map_or(json!(["kube-system"]), |all| json!(all)),
        "namespaces whose pods get no `defaultNetworks`",
    ),
    both(
        "multusNamespace",
        Kind::Pattern(NAME),
        r#""kube-system""#,
        Section::Networks,
        |s| s.delegation.multus_namespace.as_ref().map_or(json!("kube-system"), |name| json!(name.as_str())),
        "namespace of the networks that these keys and the default-network annotation name",
    ),
    both(
        "namespaceIsolation",
        Kind::Flag,
        "false",
        Section::Networks,
        |s| json!(s.delegation.namespace_isolation.unwrap_or(false)),
        "a network must be in the pod's namespace or a global one",
    ),
    both(
        "globalNamespaces",
        Kind::Text,
        r#""default""#,
        Section::Networks,
        |s| s.delegation.global_namespaces.as_ref().map_or(json!("default"), |all| json!(all.join(","))),
        "comma list; setting it replaces the list",
    ),
    both(
        "auxiliaryCNIChainName",
        Kind::Text,
        "",
        Section::Networks,
        |s| shown(s.delegation.auxiliary_chain.as_ref()),
        "a chain that every pod gets last, on `net<number>`: the built-in plugin `passthru`, then the plugins of the files `<name>/*.conf` beside the cluster network's file, in the order of their names. Without such a file there is no chain. `clusterNetwork` must be a path, or found by itself; else ADD is refused",
    ),
    own(
        "requestTimeout",
        Kind::Duration,
        r#""120s""#,
        Section::Limits,
        |s| duration(s.request_timeout),
        "one deadline for a CNI request, more than nothing and at most an hour; everything inside it derives from this. The shorter of the agent's and the shim's counts",
    ),
    key(
        "connectionLimit",
        Kind::Number(1, u32::MAX),
        "512",
        Section::Limits,
        |s| json!(s.connection_limit.unwrap_or(512)),
        "most connections served at once; greater than 0. Others wait",
    ),
    own(
        "metricsAddress",
        Kind::Address,
        "",
        Section::Limits,
        |s| if s.origin.has("metricsAddress") { shown(s.metrics_address.as_ref()) } else { Value::Null },
        "`host:port` of `/metrics`, the host an address and not a name; `:port` is every address",
    ),
    key(
        "metricsPort",
        Kind::Number(1, 65_535),
        "",
        Section::Limits,
        |s| {
            if s.origin.has("metricsPort") {
                s.metrics_address.map_or(Value::Null, |a| json!(a.port()))
            } else {
                Value::Null
            }
        },
        "`/metrics` on this port of every address, as in Multus; `metricsAddress` goes before",
    ),
    own(
        "pageAddress",
        Kind::Address,
        "",
        Section::Limits,
        |s| shown(s.page_address.as_ref()),
        "`host:port` of a read-only [web page](../how-to/web-page.md), apart from `/metrics`; none: no page. Whoever reaches it \
         reads names of pods and services, so an address beyond loopback is a warning",
    ),
    own(
        "pageHosts",
        Kind::Texts,
        "[]",
        Section::Limits,
        |s| json!(s.page_hosts),
        "names by which the web page may be asked for, besides addresses, `localhost` and the node's name; others are \
         refused, as another site's script could ask by them",
    ),
];
