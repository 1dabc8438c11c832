//! Taking it off as the manifests do: their own command lines, on a host whose folders are mounted as they say; and what the
//! Job, or the chart's hook, sends to the API server.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::{Lab, agent, process, sys};
use serde_json::{Value, json};

use super::needs_kubernetes;
use super::rendered::{self, OVERLAYS};
use crate::install::everywhere::{daemon_set, server};
use crate::install::tree::{FLANNEL, Tree};

const LIMIT: Duration = Duration::from_secs(30);

fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The folders of the host that a pod mounts, with where it sees them.
fn mounts<'a>(pod: &'a Value, container: &'a Value) -> Vec<(Option<&'a str>, &'a str, bool)> {
    let volume = |name: &Value| {
        let all = pod["volumes"].as_array().expect("volumes");
        all.iter().find(|volume| volume["name"] == *name).unwrap_or_else(|| panic!("no volume {name}"))
    };
    let listed = container["volumeMounts"].as_array().into_iter().flatten();
    let mut mounts: Vec<_> = listed
        .map(|mount| {
            let path = volume(&mount["name"])["hostPath"]["path"].as_str();
            (path, mount["mountPath"].as_str().expect("a path"), mount["readOnly"] == true)
        })
        .collect();
    // What is above comes first, as a runtime sorts them.
    mounts.sort_by_key(|(_, at, _)| at.len());
    mounts
}

/// Starts a container in a root of its own, which has the program and these mounts and nothing else.
fn contain(lab: &Lab, tree: &Tree, pod: &Value, container: &Value, config: &Path) -> process::Finished {
    let root = lab.dir.join("container");
    fs::create_dir_all(&root).expect("make a folder");
    let mut script =
        format!("set -e; r={}; mount -t tmpfs none $r; mkdir -p $r/usr/bin $r/usr/lib $r/proc; ", root.display());
    // A program that is not linked statically has its libraries.
    for folder in ["/lib", "/lib64", "/usr/lib"] {
        let _ = write!(script, "[ -e {folder} ] && {{ mkdir -p $r{folder}; mount --bind {folder} $r{folder}; }}; ");
    }
    script += "mount -t proc none $r/proc; ";
    let programs = ["multus-agent", "multus-shim"].map(|name| (name, agent::program(name)));
    for (name, program) in programs.into_iter().chain([("setpriv", "/usr/bin/setpriv".into())]) {
        let _ = write!(script, "touch $r/usr/bin/{name}; mount --bind {} $r/usr/bin/{name}; ", program.display());
    }
    for (host, at, is_read_only) in mounts(pod, container) {
        let from = host.map_or_else(|| config.display().to_string(), |path| tree.path(path).display().to_string());
        let _ = write!(script, "mkdir -p {from} $r{at}; mount --bind {from} $r{at}; ");
        if is_read_only {
            let _ = write!(script, "mount -o remount,bind,ro $r{at}; ");
        }
    }
    // Root without the rights that the manifest leaves out.
    let added = words(&container["securityContext"]["capabilities"]["add"]);
    let rights: String = added.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    let _ = write!(script, "mount -o remount,ro $r; exec chroot $r /usr/bin/setpriv --no-new-privs ");
    let _ = write!(script, "--bounding-set=-all{rights} --inh-caps=-all \"$@\"");
    let mut command = lab.node.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command.args(words(&container["command"])).args(words(&container["args"]));
    process::run(command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), b"", LIMIT)
}

#[test]
fn the_manifests_own_commands_put_it_on_a_host_and_take_it_off_again() {
    needs_programs!();
    needs_kubernetes!();
    let (lab, mut seen) = (Lab::new("manifest-uninstall"), BTreeSet::new());
    for name in OVERLAYS {
        let (install, uninstall) =
            (rendered::manifest(&format!("install-{name}")), rendered::overlay(name, &["uninstall"]));
        let text = rendered::config(&install);
        let config: Value = serde_json::from_str(&text).expect("JSON");
        let (pod, off) = (rendered::pod(&install), rendered::pod(&uninstall));
        // Those that mount the same and are configured alike differ in nothing that matters here.
        if !seen.insert((format!("{:?}", mounts(off, &off["initContainers"][0])), text.clone())) {
            continue;
        }
        let folder = lab.dir.join(format!("config-{name}"));
        fs::create_dir_all(&folder).expect("make a folder");
        fs::write(folder.join("daemon-config.json"), &text).expect("write the configuration");
        let tree = Tree::new(name);
        let (confs, plugins) =
            (config["cniConfigDir"].as_str().expect("cniConfigDir"), config["binDir"].as_str().expect("binDir"));
        tree.file(&format!("{confs}/10-flannel.conflist"), FLANNEL, 0o600).file(
            &format!("{plugins}/bridge"),
            "a plugin",
            0o755,
        );
        // As archives of the plugins and some installers leave them.
        for folder in [confs, plugins] {
            std::os::unix::fs::chown(tree.path(folder), Some(1001), Some(127)).expect("give a folder away");
        }
        // What the kubelet makes for a mount of any pod is no trace of ours; what is ours alone is.
        for (host, ..) in mounts(off, &off["initContainers"][0]) {
            tree.folders(&[host.unwrap_or("/run")]);
        }
        // Where both names of it are mounted and the host has one, the other lies in a folder of the host's.
        tree.folders(&["/run/netns"]);
        let is_kept = |(_, at, read_only): &(_, &str, bool)| *read_only && at.starts_with("/var/lib/cni/");
        let off_mounts = mounts(off, &off["initContainers"][0]);
        assert!(!off_mounts.iter().any(is_kept), "{name}: addresses are freed from here: {off_mounts:?}");
        let before = tree.snapshot();
        let done = contain(&lab, &tree, pod, &pod["initContainers"][0], &folder);
        assert_eq!(done.code, Some(0), "{name}: {}\n{}", done.out(), done.err());
        let shim = tree.path(plugins).join("multus-shim");
        assert!(shim.is_file() && tree.path("/var/lib/cni/multus").is_dir(), "{name}: {}", done.out());
        let done = contain(&lab, &tree, off, &off["initContainers"][0], &folder);
        assert_eq!(done.code, Some(0), "{name}: {}\n{}", done.out(), done.err());
        tree.assert_is(&before, &format!("{name}, turned around: {}", done.out()));
    }
}

#[test]
fn then_its_pod_stays_without_any_right_and_ends_when_it_is_told() {
    needs_programs!();
    needs_kubernetes!();
    let uninstall = rendered::overlay("kubeadm", &["uninstall"]);
    let stays = &rendered::pod(&uninstall)["containers"][0];
    assert_eq!(words(&stays["args"]), ["uninstall", "--stay"]);
    assert_eq!(stays["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    assert!(stays["volumeMounts"].is_null(), "it sees nothing of the host");
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]).arg(agent::program("multus-agent"));
    let mut running = process::start(command.args(words(&stays["args"])).current_dir("/"), b"");
    std::thread::sleep(Duration::from_secs(1));
    assert!(running.is_running(), "it has ended by itself");
    sys::signal(running.pid(), libc::SIGTERM);
    let done = running.wait(Duration::from_secs(5));
    assert_eq!((done.code, done.timed_out), (Some(0), false), "{}\n{}", done.out(), done.err());
    assert!(done.out().contains("nothing more to do"), "{}", done.out());
}

#[test]
fn the_job_turns_every_overlay_around_and_may_do_no_more() {
    needs_programs!();
    needs_kubernetes!();
    let objects = rendered::manifest("uninstall");
    let job = rendered::ours(&objects, "Job", "multus-ebpf-uninstall");
    let patch = &rendered::ours(&objects, "ConfigMap", "multus-ebpf-uninstall")["data"]["patch.yaml"];
    let lab = Lab::new("hook");
    let (address, told) = server(vec![(200, daemon_set("uninstall", 1, 1))]);
    let kubeconfig = lab.dir.join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": address}}], "users": [{"name": "x", "user": {}}]});
    fs::write(&kubeconfig, config.to_string()).expect("write a kubeconfig");
    let file = lab.dir.join("patch.yaml");
    fs::write(&file, patch.as_str().expect("text")).expect("write the patch");
    // The Job's own words, but for where its ConfigMap is mounted and who the API server is.
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let mut command = Command::new(agent::program("multus-agent"));
    let args = words(&container["args"]);
    assert!(args.contains(&"--patch=/etc/multus-ebpf/patch.yaml"), "{args:?}");
    command.args(args.iter().filter(|word| !word.starts_with("--patch="))).arg("--patch").arg(file);
    let done = process::run(command.arg("--kubeconfig").arg(kubeconfig), b"", LIMIT);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());

    // What it asked of the API server, its Role allows.
    let rules = &rendered::ours(&objects, "Role", "multus-ebpf-uninstall")["rules"];
    assert_eq!(
        rules,
        &json!([{"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": ["multus-ebpf"], "verbs": ["get", "patch"]}])
    );
    let asked: Vec<(String, String)> = told.try_iter().collect();
    assert!(asked.len() >= 2, "{asked:?}");
    for (first, _) in &asked {
        let (verb, target) = first.split_once(' ').expect("a request");
        assert!(["GET", "PATCH"].contains(&verb), "{first}");
        assert!(target.starts_with("/apis/apps/v1/namespaces/multus-ebpf/daemonsets/multus-ebpf "), "{first}");
    }
    // And what it sent makes of every DaemonSet what the component makes of it, the chart's too.
    let sent: Value = serde_json::from_str(&asked[0].1).expect("JSON");
    let chart = rendered::chart(&json!({"preset": "kubeadm"})).expect("a chart");
    let installed = OVERLAYS.map(|name| (name, rendered::manifest(&format!("install-{name}"))));
    for (name, objects) in installed.into_iter().chain([("kubeadm", chart)]) {
        let mut daemons = rendered::ours(&objects, "DaemonSet", "multus-ebpf").clone();
        apply(&mut daemons, sent.as_array().expect("a patch"));
        let wanted = rendered::overlay(name, &["uninstall"]);
        let wanted = &rendered::ours(&wanted, "DaemonSet", "multus-ebpf")["spec"];
        assert_eq!(daemons["spec"]["template"]["spec"], wanted["template"]["spec"], "{name}");
        assert_eq!(daemons["spec"]["updateStrategy"], wanted["updateStrategy"], "{name}");
        // A second one fits no more: it is told that every node knows.
        let first = &sent[0];
        let there = daemons.pointer(first["path"].as_str().expect("a path"));
        assert!(first["op"] == "test" && there != Some(&first["value"]), "{name}");
    }
}

/// The tutorial changes one word of the manifest, so that every node is given back to Multus.
#[test]
fn the_way_back_to_multus_is_the_manifest_but_for_one_word() {
    needs_programs!();
    needs_kubernetes!();
    let tutorial = rendered::read("docs/tutorials/from-multus.md");
    let (_, rest) = tutorial.split_once("| sed '").expect("a sed in the tutorial");
    let (expression, _) = rest.split_once('\'').expect("its end");
    let manifest = rendered::root().join("deploy/manifests/uninstall.yaml");
    let changed = process::tool(Command::new("sed").arg(expression).arg(manifest));
    let scratch = rendered::Scratch::new();
    scratch.put("all.yaml", &String::from_utf8(changed).expect("UTF-8"));
    scratch.put("kustomization.yaml", "resources: [all.yaml]\n");
    let objects = rendered::kustomization(scratch.path());
    let patch = rendered::ours(&objects, "ConfigMap", "multus-ebpf-uninstall")["data"]["patch.yaml"].clone();
    let line = patch.as_str().expect("text").lines().find(|line| line.contains("initContainers/0/args")).expect("args");
    let (_, args) = line.split_once("value: [").expect("a list");
    let args: Vec<&str> = args.trim_end_matches(['}', ' ', ']']).split(", ").collect();
    assert_eq!(args, ["migrate", "--back", "--config=/etc/multus-ebpf/daemon-config.json"]);
    // Such words the agent understands: what it misses is the file.
    let done = process::run(Command::new(agent::program("multus-agent")).args(&args).arg("--dry-run"), b"", LIMIT);
    assert!(done.code == Some(1) && done.err().contains("daemon-config.json"), "{:?} {}", done.code, done.err());
}

/// JSON patch (RFC 6902), as much of it as the patch uses.
fn apply(object: &mut Value, steps: &[Value]) {
    for step in steps {
        let path = step["path"].as_str().expect("a path");
        let (above, key) = path.rsplit_once('/').expect("a pointer");
        match step["op"].as_str() {
            Some("test") => assert_eq!(object.pointer(path), Some(&step["value"]), "{step}"),
            Some("replace") => *object.pointer_mut(path).unwrap_or_else(|| panic!("{step}")) = step["value"].clone(),
            Some("remove") => match object.pointer_mut(above).unwrap_or_else(|| panic!("{step}")) {
                Value::Array(items) => drop(items.remove(key.parse().expect("an index"))),
                Value::Object(map) => assert!(map.remove(key).is_some(), "{step}"),
                _ => panic!("{step}"),
            },
            Some("copy") => {
                let value =
                    object.pointer(step["from"].as_str().expect("a path")).unwrap_or_else(|| panic!("{step}")).clone();
                let list = object.pointer_mut(above).and_then(Value::as_array_mut).unwrap_or_else(|| panic!("{step}"));
                list.insert(key.parse().expect("an index"), value);
            }
            _ => panic!("{step}"),
        }
    }
}
