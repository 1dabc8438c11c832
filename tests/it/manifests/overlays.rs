//! The overlays, the components and the files that are made from them.

use std::fs;
use std::process::Command;

use lab::{agent, process};
use multus_agent::config::Settings;
use serde_json::Value;

use super::needs_kubernetes;
use super::rendered::{self, COMPONENTS, OVERLAYS, Objects};
use super::schema::Schemas;

/// The oldest and the newest Kubernetes that is served. `k3s-old` is for older ones.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];
/// The oldest that `k3s-old` is for.
const OLD: &str = "1.27";
/// Kinds of others' APIs, which Kubernetes has no schema for.
const OTHERS: [&str; 4] = ["PodMonitor", "ServiceMonitor", "PrometheusRule", "SecurityContextConstraints"];

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(rendered::root().join(folder)).expect("a folder of deploy/").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_overlay_and_component_is_tested_and_has_its_files() {
    assert_eq!(names("deploy/kustomize/overlays"), OVERLAYS);
    assert_eq!(names("deploy/kustomize/components"), COMPONENTS);
    let mut wanted: Vec<String> = OVERLAYS.iter().map(|name| format!("install-{name}.yaml")).collect();
    wanted.push("uninstall.yaml".to_owned());
    wanted.sort();
    assert_eq!(names("deploy/manifests"), wanted);
}

#[test]
fn the_manifests_are_what_the_overlays_come_to() {
    needs_kubernetes!();
    let installing = OVERLAYS.map(|name| (format!("install-{name}.yaml"), format!("overlays/{name}")));
    for (file, folder) in installing.into_iter().chain([("uninstall.yaml".to_owned(), "uninstall".to_owned())]) {
        let text = rendered::read(&format!("deploy/manifests/{file}"));
        let (head, rest) = text.split_once('\n').expect("a first line");
        assert!(head.contains("cargo xtask manifests") && head.contains(&folder), "{head}");
        let folder = rendered::root().join("deploy/kustomize").join(folder);
        let rendered = rendered::kubernetes(&["kustomize", folder.to_str().expect("UTF-8")]);
        assert!(rendered.as_deref() == Ok(rest), "{file} is not up to date: run `cargo xtask manifests`");
    }
}

#[test]
fn every_overlay_can_be_turned_around() {
    needs_kubernetes!();
    let patches =
        ["components/uninstall", "uninstall"].map(|at| rendered::read(&format!("deploy/kustomize/{at}/patch.yaml")));
    assert_eq!(patches[0], patches[1], "run `cargo xtask manifests`");
    for name in OVERLAYS {
        let objects = rendered::overlay(name, &["uninstall"]);
        let pod = rendered::pod(&objects);
        assert_eq!(pod["initContainers"][0]["args"][0], "uninstall");
        assert_eq!(pod["initContainers"].as_array().map(Vec::len), Some(1), "nothing is installed any more");
        let writable = |mount: &&Value| mount["name"] == "cni-bin" && mount["readOnly"] != true;
        let mounts = pod["initContainers"][0]["volumeMounts"].as_array().expect("mounts");
        assert!(mounts.iter().any(|mount| writable(&mount)), "{name}: the shim cannot be removed");
        // The API server refuses an annotation for a container that is not there.
        let template = &rendered::ours(&objects, "DaemonSet", "multus-ebpf")["spec"]["template"]["metadata"];
        let names: Vec<&str> = rendered::containers(pod).filter_map(|container| container["name"].as_str()).collect();
        for key in template["annotations"].as_object().expect("annotations").keys() {
            let of = key.strip_prefix("container.apparmor.security.beta.kubernetes.io/");
            assert!(of.is_none_or(|of| names.contains(&of)), "{name}: {key}: {names:?}");
        }
    }
}

#[test]
fn each_overlays_difference_from_the_base_is_written_down() {
    needs_kubernetes!();
    let scratch = rendered::Scratch::new();
    let render = |folder: String| {
        let folder = rendered::root().join("deploy/kustomize").join(folder);
        rendered::kubernetes(&["kustomize", folder.to_str().expect("UTF-8")]).expect("YAML")
    };
    let base = scratch.put("base.yaml", &render("base".to_owned()));
    for name in OVERLAYS {
        let overlay = scratch.put("overlay.yaml", &render(format!("overlays/{name}")));
        let output = Command::new("diff").args(["--unified=0", &base, &overlay]).output().expect("start diff");
        let output = String::from_utf8(output.stdout).expect("UTF-8");
        let changes: Vec<&str> = output.lines().skip(2).filter(|line| !line.starts_with("@@")).collect();
        let text = rendered::read(&format!("deploy/kustomize/overlays/{name}/difference.txt"));
        let written: Vec<&str> = text.lines().filter(|line| !line.is_empty() && *line != "None.").collect();
        assert_eq!(written, changes, "{name}/difference.txt is not up to date: run `cargo xtask manifests`");
    }
}

/// A second opinion, where there is one.
#[test]
fn kubectl_renders_the_same() {
    needs_kubernetes!();
    let folder = |name: &str| rendered::root().join("deploy/kustomize/overlays").join(name);
    let kubectl = |name: &str| Command::new("kubectl").arg("kustomize").arg(folder(name)).output();
    // Before kubectl 1.21 its kustomize knew no components.
    let Some(_works) = kubectl("kubeadm").ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: no kubectl that renders kustomizations");
        return;
    };
    for name in ["gke", "k3s-old", "microk8s", "openshift"] {
        let text = String::from_utf8(kubectl(name).expect("kubectl").stdout).expect("UTF-8");
        let scratch = rendered::Scratch::new();
        scratch.put("all.yaml", &text);
        scratch.put("kustomization.yaml", "resources: [all.yaml]\n");
        assert_eq!(rendered::kustomization(scratch.path()), rendered::overlay(name, &[]), "{name}");
    }
}

#[test]
fn objects_fit_the_schemas_of_the_oldest_and_the_newest_kubernetes() {
    needs_kubernetes!();
    let everything: Vec<&str> = COMPONENTS.iter().copied().filter(|name| *name != "uninstall").collect();
    for version in VERSIONS {
        let schemas = Schemas::of(version);
        for name in OVERLAYS {
            let is_old = name == "k3s-old";
            fits(
                &schemas,
                &format!("{name} at {version}"),
                &rendered::overlay(name, if is_old { &[] } else { &everything }),
            );
        }
        fits(&schemas, &format!("turned around at {version}"), &rendered::overlay("k3s", &["uninstall"]));
        fits(&schemas, &format!("uninstall at {version}"), &rendered::manifest("uninstall"));
    }
    fits(&Schemas::of(OLD), "k3s-old", &rendered::overlay("k3s-old", &["host-exec", "reflect"]));
}

pub(super) fn fits(schemas: &Schemas, what: &str, objects: &Objects) {
    assert!(!objects.is_empty());
    for ((kind, _, name), object) in objects {
        match schemas.faults(object) {
            Some(faults) => assert!(faults.is_empty(), "{what}: {kind} {name}: {}", faults.join("\n")),
            None => assert!(OTHERS.contains(&kind.as_str()), "{what}: no schema of {kind}"),
        }
    }
}

#[test]
fn the_judge_of_schemas_finds_what_does_not_fit() {
    needs_kubernetes!();
    let schemas = Schemas::of(VERSIONS[0]);
    let good = rendered::ours(&rendered::overlay("k3s", &[]), "DaemonSet", "multus-ebpf").clone();
    assert_eq!(schemas.faults(&good), Some(vec![]));
    let spoil = |change: fn(&mut Value)| {
        let mut bad = good.clone();
        change(&mut bad["spec"]);
        schemas.faults(&bad).expect("a DaemonSet").join("; ")
    };
    assert!(spoil(|spec| spec["selektor"] = "x".into()).contains("unknown field selektor"));
    assert!(spoil(|spec| drop(spec.as_object_mut().and_then(|s| s.remove("template")))).contains("lacks \"template\""));
    assert!(spoil(|spec| spec["template"]["spec"]["hostNetwork"] = "yes".into()).contains("hostNetwork"));
    // AppArmor's field came with 1.30, and k3s-old is for older ones.
    assert!(!Schemas::of(OLD).faults(&good).expect("a DaemonSet").is_empty());
}

#[test]
fn the_agent_knows_every_key_of_every_configuration() {
    needs_kubernetes!();
    for name in OVERLAYS {
        for components in [&[][..], &["monitoring"][..]] {
            let objects = rendered::overlay(name, components);
            let (settings, warnings) =
                Settings::parse(&rendered::config(&objects)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(warnings.is_empty(), "{name}: {warnings:?}");
            assert!(settings.generator.on && settings.searches_master(), "{name}: nothing is written for the runtime");
            let address = settings.metrics_address.expect("metricsAddress");
            assert_eq!(address.ip().is_loopback(), components.is_empty(), "{name}: {address}");
            folders_are_mounted(name, &objects, &settings);
        }
    }
}

/// Every folder that the configuration names, or that has a default, is the host's under the host's own name.
fn folders_are_mounted(name: &str, objects: &Objects, settings: &Settings) {
    let pod = rendered::pod(objects);
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    let mounted = |folder: &str| {
        let folder = folder.trim_end_matches('/');
        let above = |mount: &&Value| {
            let at = mount["mountPath"].as_str().unwrap_or_default();
            folder == at || folder.starts_with(&format!("{at}/"))
        };
        let mount = mounts.iter().find(above).unwrap_or_else(|| panic!("{name}: {folder} is not mounted"));
        let volumes = pod["volumes"].as_array().expect("volumes");
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("the mount's volume");
        let host = volume["hostPath"]["path"].as_str().expect("a folder of the host").to_owned();
        (host, mount["mountPath"].as_str().expect("a path").to_owned(), mount["readOnly"] == true)
    };
    let delegation = &settings.delegation;
    let bin = delegation.bin_dir.as_deref().expect("binDir");
    let state = delegation.cni_dir.as_deref().expect("cniDir");
    let kubelet = format!("{}/pod-resources", settings.kubelet_dir);
    for (folder, reads_only) in [
        (settings.generator.cni_config_dir.as_str(), false),
        (bin, true),
        (state, false),
        (settings.socket_dir.as_str(), false),
        (settings.datapath.bpffs.as_str(), false),
        (kubelet.as_str(), true),
        (settings.device_info_dir.as_str(), false),
        ("/run/netns", true),
        ("/var/run/netns", true),
        ("/var/lib/cni/networks", true),
    ] {
        let (host, inside, is_read_only) = mounted(folder);
        assert_eq!(is_read_only, reads_only, "{name}: {folder}");
        // Talos has the namespaces in one of the two alone.
        assert!(host == inside || folder == "/run/netns" && host == "/var/run/netns", "{name}: {host} as {inside}");
    }
    // The namespaces and the pins of the host's that come later are seen, too.
    for late in ["/run/netns", "/var/run/netns", "/sys/fs/bpf"] {
        let mount = mounts.iter().find(|mount| mount["mountPath"] == late).expect("mounted");
        assert_eq!(mount["mountPropagation"], "HostToContainer", "{name}: {late}");
    }
    let shim = pod["initContainers"][0]["volumeMounts"].as_array().expect("mounts");
    assert!(shim.iter().any(|mount| mount["name"] == "cni-bin" && mount["readOnly"] != true), "{name}: no shim");
    assert!(shim.iter().any(|mount| mount["name"] == "state"), "{name}: nowhere to note what is to be reverted");
}

#[test]
fn the_agent_knows_every_command_line() {
    needs_kubernetes!();
    needs_programs!();
    let mut lines = std::collections::BTreeSet::new();
    let chart = rendered::chart(&serde_json::json!({})).expect("a chart");
    for objects in [rendered::overlay("k3s", &["host-exec"]), rendered::overlay("k3s", &["uninstall"]), chart] {
        for container in rendered::pods(&objects).into_iter().flat_map(|(_, pod)| rendered::containers(pod)) {
            let words = |list: &Value| -> Vec<String> {
                list.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
            };
            assert_eq!(words(&container["command"]), ["/usr/bin/multus-agent"]);
            lines.insert(words(&container["args"]));
            let asked = ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]);
            let hooks = asked.into_iter().chain([&container["lifecycle"]["preStop"]]);
            lines.extend(hooks.map(|hook| words(&hook["exec"]["command"])).filter(|line| !line.is_empty()).map(
                |mut line| {
                    assert_eq!(line.remove(0), "/usr/bin/multus-agent");
                    line
                },
            ));
        }
    }
    assert!(lines.len() >= 9, "{lines:?}");
    for line in lines {
        // Whatever is not known is said before the help is printed.
        let mut command = Command::new(agent::program("multus-agent"));
        let done = process::run(command.args(&line).arg("--help"), b"", std::time::Duration::from_secs(10));
        assert_eq!(done.code, Some(0), "multus-agent {line:?}: {}", done.err());
    }
}

#[test]
fn the_image_is_this_versions() {
    needs_kubernetes!();
    let wanted = format!("ghcr.io/multus-ebpf/multus-ebpf:{}", env!("CARGO_PKG_VERSION"));
    for name in OVERLAYS {
        let objects = rendered::overlay(name, &[]);
        for container in rendered::containers(rendered::pod(&objects)) {
            assert_eq!(container["image"], wanted.as_str(), "{name}");
        }
    }
    let chart = rendered::read("deploy/helm/multus-ebpf/Chart.yaml");
    for line in [concat!("version: ", env!("CARGO_PKG_VERSION")), concat!("appVersion: ", env!("CARGO_PKG_VERSION"))] {
        assert!(chart.lines().any(|found| found == line), "Chart.yaml lacks {line:?}");
    }
}
