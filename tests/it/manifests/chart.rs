//! The chart comes to the same objects as the overlays, and refuses what it does not know.

use std::fs;

use multus_agent::config::Settings;
use serde_json::{Value, json};

use super::needs_kubernetes;
use super::overlays::fits;
use super::privileges::is_modest;
use super::rendered::{self, OVERLAYS, Objects};
use super::schema::Schemas;

/// What Helm alone needs, or kustomize alone, taken off; the configuration as JSON, whatever its order of keys.
fn comparable(objects: Objects) -> Objects {
    let is_hook = |object: &Value| object["metadata"]["annotations"].get("helm.sh/hook").is_some();
    let mut objects: Objects =
        objects.into_iter().filter(|((kind, ..), object)| kind != "Namespace" && !is_hook(object)).collect();
    for ((kind, _, name), object) in &mut objects {
        for key in ["helm.sh/resource-policy", "multus-ebpf.io/metrics-address"] {
            remove(object, &["metadata", "annotations"], key);
        }
        remove(object, &["spec", "template", "metadata", "annotations"], "multus-ebpf.io/config-digest");
        if object["metadata"]["annotations"].as_object().is_some_and(serde_json::Map::is_empty) {
            remove(object, &["metadata"], "annotations");
        }
        if kind == "ConfigMap" && name == "multus-ebpf-config" {
            let text = object["data"]["daemon-config.json"].as_str().expect("daemon-config.json");
            object["data"] = serde_json::from_str(text).expect("JSON");
        }
    }
    objects
}

fn remove(object: &mut Value, path: &[&str], key: &str) {
    let mut inner = Some(object);
    for part in path {
        inner = inner.and_then(|value| value.get_mut(*part));
    }
    if let Some(map) = inner.and_then(Value::as_object_mut) {
        map.remove(key);
    }
}

fn same(what: &str, values: &Value, overlay: &str, components: &[&str]) {
    let chart = comparable(rendered::chart(values).unwrap_or_else(|refusal| panic!("{what}: {refusal}")));
    let kustomize = comparable(rendered::overlay(overlay, components));
    assert_eq!(chart.keys().collect::<Vec<_>>(), kustomize.keys().collect::<Vec<_>>(), "{what}");
    for (key, object) in &chart {
        assert_eq!(object, &kustomize[key], "{what}: {key:?}");
    }
}

#[test]
fn every_preset_comes_to_what_its_overlay_does() {
    needs_kubernetes!();
    for name in OVERLAYS {
        same(name, &json!({"preset": name}), name, &[]);
    }
}

#[test]
fn every_option_comes_to_what_its_component_does() {
    needs_kubernetes!();
    for (values, component) in [
        (json!({"hostExec": true}), "host-exec"),
        (json!({"oldKernel": true}), "old-kernel"),
        (json!({"confDir": true}), "conf-dir"),
        (json!({"reflect": {"enabled": true}}), "reflect"),
        (json!({"metrics": {"address": ":9479", "podMonitor": {"enabled": true}}}), "monitoring"),
        (json!({"admissionPolicies": {"ownNodeStatus": true, "pluginTypes": {"enabled": true}}}), "admission-policies"),
    ] {
        same(component, &values, "kubeadm", &[component]);
    }
}

#[test]
fn the_copies_in_the_chart_are_copies() {
    let pairs = [
        ("kustomize/base/crd.yaml", "crd.yaml"),
        ("kustomize/base/daemon-config.json", "daemon-config.json"),
        ("kustomize/components/uninstall/patch.yaml", "uninstall-patch.yaml"),
        ("kustomize/components/admission-policies/own-node-status.yaml", "own-node-status.yaml"),
        ("kustomize/components/admission-policies/plugin-types.yaml", "plugin-types.yaml"),
    ];
    let mut pairs: Vec<(String, String)> = pairs.map(|(from, to)| (from.to_owned(), to.to_owned())).to_vec();
    for (folder, ending) in [("dashboards", "json"), ("alerts", "yaml")] {
        let listed = |at: &str| {
            let entries = fs::read_dir(rendered::root().join(at)).into_iter().flatten().flatten();
            let mut names: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.retain(|name| name.ends_with(&format!(".{ending}")));
            names.sort();
            names
        };
        let names = listed(&format!("deploy/{folder}"));
        let copies = listed(&format!("deploy/helm/multus-ebpf/files/{folder}"));
        assert_eq!(copies, names, "run `cargo xtask manifests`");
        pairs.extend(names.iter().map(|name| (format!("{folder}/{name}"), format!("{folder}/{name}"))));
    }
    for (from, to) in pairs {
        let copy = rendered::read(&format!("deploy/helm/multus-ebpf/files/{to}"));
        assert!(copy == rendered::read(&format!("deploy/{from}")), "{to} is no copy: run `cargo xtask manifests`");
    }
}

#[test]
fn preset_auto_goes_by_the_api_servers_version() {
    needs_kubernetes!();
    let folder = |version: &str| {
        let objects = rendered::chart(&json!({"kubeVersion": version})).expect("a chart");
        let config: Value = serde_json::from_str(&rendered::config(&objects)).expect("JSON");
        config["binDir"].as_str().expect("binDir").to_owned()
    };
    for (version, wanted) in [
        ("v1.32.1", "/opt/cni/bin"),
        ("v1.32.1+k3s1", "/var/lib/rancher/k3s/data/cni"),
        ("v1.31.2+k3s1", "/var/lib/rancher/k3s/data/cni"),
        ("v1.31.1+k3s1", "/var/lib/rancher/k3s/data/current/bin"),
        ("v1.30.5+k3s1", "/var/lib/rancher/k3s/data/current/bin"),
        ("v1.28.15+k3s1", "/var/lib/rancher/k3s/data/cni"),
        ("v1.27.16+k3s1", "/var/lib/rancher/k3s/data/current/bin"),
        ("v1.32.1+rke2r1", "/opt/cni/bin"),
        ("v1.32.1-gke.1002001", "/home/kubernetes/bin"),
        ("v1.32.1-eks-aeac579", "/opt/cni/bin"),
    ] {
        assert_eq!(folder(version), wanted, "{version}");
    }
}

#[test]
fn what_it_does_not_know_is_refused_and_old_values_by_their_new_name() {
    needs_kubernetes!();
    for (values, wanted) in [
        (json!({"presett": "k3s"}), "presett"),
        (json!({"preset": "k3d"}), "preset"),
        (json!({"image": {"tagg": "x"}}), "tagg"),
        (json!({"metrics": {"podMonitor": {"enabled": "yes"}}}), "podMonitor"),
        (json!({"metrics": {"podMonitor": {"enabled": true}}}), "metrics.address"),
        (json!({"config": {"metricsAddress": ":1"}}), "write metrics.address"),
        (json!({"thickPlugin": {"enabled": false}}), "no thin mode"),
        (json!({"config": {"cni_conf": {"binDir": "/x"}}}), "directly into config"),
        (json!({"config": {"path": "/etc/cni/net.d"}}), "config.cniConfigDir"),
        (json!({"manifests": {"daemonSet": true}}), "crds.install"),
        (json!({"dynamicNetworksController": {"enabled": true}}), "hostExec"),
        (json!({"labels": {"nodeSelector": {}}}), "nodeSelector"),
        (json!({"pod": {"resources": {}}}), "resources"),
        (json!({"thickPlugin": {"image": {"tag": "x"}}}), "image.repository"),
        (json!({"cniplugins": {"image": {}}}), "containernetworking-plugins"),
        (json!({"dhcpDaemonSet": {"enabled": true}}), "by itself"),
    ] {
        let refusal = rendered::chart(&values).expect_err(&values.to_string());
        assert!(refusal.contains(wanted), "{values}: {refusal}");
    }
}

#[test]
fn values_of_the_chart_of_rke2_are_understood() {
    needs_kubernetes!();
    let objects = rendered::chart(&json!({
        "preset": "rke2",
        "thickPlugin": {"enabled": true},
        "config": {
            "daemon_conf": {
                "chrootDir": "/hostroot", "cniConfigDir": "/hostroot/var/lib/rancher/k3s/agent/etc/cni/net.d",
                "multusAutoconfigDir": "/hostroot/run/master", "multusConfigFile": "auto",
                "socketDir": "/host/run/multus/", "binDir": "/hostroot/opt/cni/bin", "namespaceIsolation": true,
            },
            "logLevel": "debug",
        },
    }))
    .expect("a chart");
    let text = rendered::config(&objects);
    let (settings, warnings) = Settings::parse(&text).expect("a configuration");
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(settings.generator.cni_config_dir, "/var/lib/rancher/k3s/agent/etc/cni/net.d");
    assert_eq!(settings.generator.autoconfig_dir, "/run/master");
    assert_eq!(settings.socket_dir, "/run/multus/");
    assert_eq!(settings.chroot_dir, None, "there is no such mount");
    assert!(settings.delegation.namespace_isolation == Some(true), "{text}");
    let mounts = rendered::pod(&objects)["containers"][0]["volumeMounts"].to_string();
    assert!(mounts.contains("\"/run/master\""), "{mounts}");
    assert!(mounts.contains("/var/lib/rancher/k3s/agent/etc/cni/net.d") && !mounts.contains("hostroot"), "{mounts}");
}

#[test]
fn the_crd_outlives_the_release_and_can_be_left_to_others() {
    needs_kubernetes!();
    let name = "network-attachment-definitions.k8s.cni.cncf.io";
    let objects = rendered::chart(&json!({})).expect("a chart");
    let crd = rendered::ours(&objects, "CustomResourceDefinition", name);
    assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let without = rendered::chart(&json!({"crds": {"install": false}})).expect("a chart");
    assert!(!without.keys().any(|(kind, ..)| kind == "CustomResourceDefinition"));
}

#[test]
fn before_it_goes_every_node_is_cleaned() {
    needs_kubernetes!();
    let objects = rendered::chart(&json!({})).expect("a chart");
    let job = rendered::ours(&objects, "Job", "multus-ebpf-uninstall");
    assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-delete");
    // The same as without a chart.
    let manifest = rendered::manifest("uninstall");
    for (kind, key) in [("Job", "spec"), ("ConfigMap", "data"), ("Role", "rules"), ("RoleBinding", "subjects")] {
        let of = |objects| &rendered::ours(objects, kind, "multus-ebpf-uninstall")[key];
        assert_eq!(of(&objects), of(&manifest), "{kind}");
    }
    // The folders above the agent's own, wherever an operator has these.
    let values = json!({"config": {"cniDir": "/opt/multus/state/", "socketDir": "/run/net/multus"}});
    let elsewhere = rendered::chart(&values).expect("a chart");
    let patch = rendered::ours(&elsewhere, "ConfigMap", "multus-ebpf-uninstall")["data"]["patch.yaml"].to_string();
    for (path, folder) in [("volumes/2/hostPath/path", "/opt/multus"), ("volumes/3/hostPath/path", "/run/net")] {
        assert!(patch.contains(&format!("{path}, value: {folder} }}")), "{folder}: {patch}");
    }
    assert!(!patch.contains("value: /run }") && !patch.contains("value: /var/lib/cni }"), "{patch}");
    let kept = rendered::chart(&json!({"uninstall": {"onDelete": false}})).expect("a chart");
    assert!(!kept.keys().any(|(kind, ..)| kind == "Job"));
}

#[test]
fn everything_switched_on_fits_the_schemas_and_is_modest() {
    needs_kubernetes!();
    let objects = rendered::chart(&json!({
        "preset": "openshift", "hostExec": true, "confDir": true, "reflect": {"enabled": true, "namespace": "discovery"},
        "image": {"digest": format!("sha256:{}", "0".repeat(64)), "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}], "podLabels": {"team": "net"}, "podAnnotations": {"a": "b"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}}},
        "metrics": {
            "address": ":9479", "podMonitor": {"enabled": true, "labels": {"release": "p"}},
            "serviceMonitor": {"enabled": true}, "rules": {"enabled": true, "configMaps": true},
            "dashboards": {"enabled": true, "annotations": {"grafana_folder": "Network"}},
        },
        "admissionPolicies": {"ownNodeStatus": true, "pluginTypes": {"enabled": true, "namespaces": {"home": "macvlan"}}},
    }))
    .expect("a chart");
    fits(&Schemas::of("1.30"), "chart", &objects);
    is_modest("chart", &objects);
    let types = rendered::ours(&objects, "ConfigMap", "multus-ebpf-plugin-types");
    assert_eq!(types["data"]["home"], "macvlan");
    let count = |kind: &str, part: &str| objects.keys().filter(|(k, _, name)| k == kind && name.contains(part)).count();
    let files = |folder: &str| {
        fs::read_dir(rendered::root().join("deploy/helm/multus-ebpf/files").join(folder)).into_iter().flatten().count()
    };
    assert_eq!(count("ConfigMap", "multus-ebpf-dashboard-"), files("dashboards"));
    assert_eq!(count("PrometheusRule", "multus-ebpf-"), files("alerts"));
    let rules = rendered::ours(&objects, "ConfigMap", "multus-ebpf-alerts");
    assert_eq!(rules["data"]["alerts.yaml"], rendered::read("deploy/alerts/alerts.yaml"));
}

#[test]
fn helm_has_nothing_to_say_against_it() {
    needs_kubernetes!();
    let scratch = rendered::Scratch::new();
    let values = scratch.put("values.json", "{}");
    let folder = rendered::root().join("deploy/helm/multus-ebpf");
    let report = rendered::kubernetes(&["lint", folder.to_str().expect("UTF-8"), &values]).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["total_charts_linted"], 1);
    // 1 is advice: it would like an icon.
    let bad: Vec<&Value> =
        report["messages"].as_array().into_iter().flatten().filter(|message| message["severity"] != 1).collect();
    assert!(bad.is_empty(), "{bad:?}");
}
