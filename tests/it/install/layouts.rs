//! Every distribution's host: the folders are found, the plugin goes where the runtime looks, and what was there before
//! comes back byte for byte.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use lab::{Finished, Lab};
use multus_agent::ops::install::Preset;
use serde_json::{Value, json};

use super::tree::{FLANNEL, SHIM, Tree, config, sentences};

const K3S: &str = "/var/lib/rancher/k3s";
const K3S_CONF: &str = "/var/lib/rancher/k3s/agent/etc/cni/net.d";

fn containerd(conf: &str, bin: &str) -> String {
    format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{bin}\"\n  conf_dir = \"{conf}\"\n"
    )
}

fn containerd_3(conf: &str, bin: &str) -> String {
    format!(
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = ['{bin}']\n  conf_dir = '{conf}'\n"
    )
}

/// A host, what is recognised, and its two folders; the plugin's as it really is, links followed.
struct Layout {
    tree: Tree,
    recognised: Option<&'static str>,
    conf: &'static str,
    bin: &'static str,
}

fn layout(
    name: &str,
    recognised: Option<&'static str>,
    (conf, bin): (&'static str, &'static str),
    make: impl FnOnce(&Tree),
) -> Layout {
    let tree = Tree::new(name);
    make(&tree);
    tree.folders(&[conf, bin]).file(&format!("{conf}/10-flannel.conflist"), FLANNEL, 0o644);
    Layout { tree, recognised, conf, bin }
}

fn layouts() -> Vec<Layout> {
    let usual = ("/etc/cni/net.d", "/opt/cni/bin");
    vec![
        layout("kubeadm", None, usual, |tree| {
            tree.file(
                "/etc/containerd/config.toml",
                "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
                0o644,
            )
            .file("/etc/containerd/conf.d/cni.toml", &containerd(usual.0, usual.1), 0o644);
        }),
        layout("imported", None, ("/opt/cni/net.d", "/usr/lib/cni"), |tree| {
            tree.file("/etc/containerd/config.toml", "imports = ['/srv/more.toml']\n", 0o644).file(
                "/srv/more.toml",
                &containerd_3("/opt/cni/net.d", "/usr/lib/cni"),
                0o644,
            );
        }),
        layout("kind", Some("kind"), usual, |tree| {
            tree.file("/kind/version", "v1.31.0", 0o644);
        }),
        layout("k3s", Some("k3s"), (K3S_CONF, "/var/lib/rancher/k3s/data/cni"), |tree| {
            let text = containerd(K3S_CONF, "/var/lib/rancher/k3s/data/cni");
            tree.file(&format!("{K3S}/agent/etc/containerd/config.toml"), &text, 0o600)
                .folders(&["/var/lib/rancher/k3s/data/aaa/bin"])
                .link("/var/lib/rancher/k3s/data/current", "/var/lib/rancher/k3s/data/aaa");
        }),
        layout("k3s-old", Some("k3s-old"), (K3S_CONF, "/var/lib/rancher/k3s/data/aaa/bin"), old_k3s),
        layout("rke2", Some("rke2"), usual, |tree| {
            let text = containerd_3(usual.0, usual.1);
            tree.file("/var/lib/rancher/rke2/agent/etc/containerd/config.toml", &text, 0o600);
        }),
        layout("talos", Some("talos"), usual, |tree| {
            tree.file("/etc/os-release", "NAME=\"Talos\"\nID=talos\n", 0o644);
        }),
        layout("talos-var", Some("talos-var"), ("/var/lib/cni/conf.d", "/var/lib/cni/bin"), |tree| {
            tree.file("/etc/os-release", "ID=talos\n", 0o644).file(
                "/etc/cri/conf.d/20-customization.part",
                &containerd_3("/var/lib/cni/conf.d", "/var/lib/cni/bin"),
                0o644,
            );
        }),
        layout(
            "microk8s",
            Some("microk8s"),
            ("/var/snap/microk8s/7589/args/cni-network", "/var/snap/microk8s/7589/opt/cni/bin"),
            |tree| {
                let text = containerd("${SNAP_DATA}/args/cni-network", "${SNAP_DATA}/opt/cni/bin");
                tree.file("/var/snap/microk8s/7589/args/containerd.toml", &text, 0o644)
                    .link("/var/snap/microk8s/current", "7589");
            },
        ),
        layout("k0s", Some("k0s"), usual, |tree| {
            tree.folders(&["/var/lib/k0s"]).file("/run/k0s/containerd-cri.toml", &containerd(usual.0, usual.1), 0o644);
        }),
        layout("cri-o", Some("cri-o"), ("/etc/cni/net.d", "/usr/libexec/cni"), |tree| {
            tree.file("/etc/crio/crio.conf", "[crio.network]\nplugin_dirs = [\n\t\"/usr/libexec/cni\",\n]\n", 0o644);
        }),
        layout("openshift", Some("openshift"), ("/etc/kubernetes/cni/net.d", "/var/lib/cni/bin"), |tree| {
            let text =
                "[crio.network]\nnetwork_dir = \"/etc/kubernetes/cni/net.d/\"\nplugin_dirs = [\"/var/lib/cni/bin\"]\n";
            tree.file("/etc/os-release", "ID=\"rhcos\"\n", 0o644).file("/etc/crio/crio.conf.d/00-default", "", 0o644);
            tree.file("/etc/crio/crio.conf.d/00-default.conf", text, 0o644);
        }),
        // With what CRI-O's own packages write, and the plugins of kubernetes-cni.
        layout("crio-own", Some("cri-o"), usual, |tree| {
            let text = "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///var/run/crio/crio.sock\"\n";
            tree.file("/var/lib/kubelet/kubeadm-flags.env", text, 0o644)
                .file("/etc/crio/crio.conf.d/10-crio.conf", "[crio.runtime]\ndefault_runtime = \"crun\"\n", 0o644)
                .file("/opt/cni/bin/bridge", "a plugin", 0o755);
        }),
        layout("crio-two", Some("cri-o"), usual, |tree| {
            let text = "[crio.network]\nplugin_dirs = [\"/usr/libexec/cni/\", \"/opt/cni/bin/\"]\n";
            tree.file("/etc/crio/crio.conf", text, 0o644).file("/opt/cni/bin/bridge", "a plugin", 0o755);
        }),
        layout("moved-k3s", Some("k3s"), ("/srv/k3s/agent/etc/cni/net.d", "/srv/k3s/data/cni"), |tree| {
            let text = containerd_3("/srv/k3s/agent/etc/cni/net.d", "/srv/k3s/data/cni");
            tree.file("/etc/rancher/k3s/config.yaml", "data-dir: /srv/k3s\n", 0o600)
                .file("/srv/k3s/agent/etc/containerd/config.toml", &text, 0o600)
                .file("/etc/cni/net.d/87-podman.conflist", FLANNEL, 0o644);
        }),
        layout("inline", None, ("/opt/cni/net.d", "/usr/lib/cni"), |tree| {
            let text = "[plugins.'io.containerd.cri.v1.runtime']\ncni = { bin_dirs = ['/usr/lib/cni'], conf_dir = \"/opt/cni/net.d\" }\n";
            tree.file("/etc/containerd/config.toml", "version = 3\nimports = [\"conf.d/*.toml\"]\n", 0o644).file(
                "/etc/containerd/conf.d/cni.toml",
                text,
                0o644,
            );
        }),
        // Flannel's file is somewhere else, and the runtime's own configuration is not to be seen.
        layout("elsewhere", None, ("/etc/kubernetes/cni/net.d", "/opt/cni/bin"), |_| {}),
    ]
}

fn old_k3s(tree: &Tree) {
    let text = containerd(K3S_CONF, "/var/lib/rancher/k3s/data/aaa/bin");
    tree.file(&format!("{K3S}/agent/etc/containerd/config.toml"), &text, 0o600)
        .file(&format!("{K3S}/data/aaa/bin/bridge"), "a plugin", 0o755)
        .link(&format!("{K3S}/data/current"), "/var/lib/rancher/k3s/data/aaa");
}

#[test]
fn on_every_layout_the_folders_are_found_and_the_host_comes_back_as_it_was() {
    needs_programs!();
    for Layout { tree, recognised, conf, bin } in layouts() {
        let before = tree.snapshot();
        let name = tree.root.display().to_string();
        let dry = tree.document(&["install", "--dry-run"], &config(&json!({})));
        tree.assert_is(&before, &format!("a dry run on {name}"));
        let places = &dry["places"];
        assert_eq!(places["recognised"].as_str(), recognised, "{name}: {places:#}");
        assert_eq!(places["doubts"], json!([]), "{name}");
        let leads_to = |place: &Value| {
            let path = place["path"].as_str().expect("a path");
            path.replace("/current/", if name.contains("k3s") { "/aaa/" } else { "/7589/" })
        };
        assert_eq!(
            (leads_to(&places["confDir"]).as_str(), leads_to(&places["binDir"]).as_str()),
            (conf, bin),
            "{name}"
        );
        let done = tree.document(&["install"], &config(&json!({})));
        let shim = tree.path(bin).join("multus-shim");
        let about = fs::symlink_metadata(&shim).unwrap_or_else(|error| panic!("{}: {error}: {done:#}", shim.display()));
        assert_eq!((about.mode() & 0o7777, fs::read_to_string(&shim).unwrap().as_str()), (0o755, SHIM));
        let installed = tree.snapshot();
        let again = tree.document(&["install"], &config(&json!({})));
        assert!(sentences(&again).contains("already: "), "{again:#}");
        tree.assert_is(&installed, &format!("a second install on {name}"));
        let dry = sentences(&tree.document(&["uninstall", "--dry-run"], &config(&json!({}))));
        assert!(dry.contains("multus-shim"), "{name}: {dry}");
        tree.assert_is(&installed, "a dry run");
        tree.document(&["uninstall"], &config(&json!({})));
        tree.assert_is(&before, &format!("uninstall on {name}"));
        let nothing = tree.document(&["uninstall"], &config(&json!({})));
        assert_eq!(sentences(&nothing), "already: nothing of ours is on this host\n");
        tree.assert_is(&before, "a second uninstall");
    }
}

#[test]
fn values_of_the_rke2_chart_and_explicit_ones_go_before_what_is_found() {
    needs_programs!();
    let tree = Tree::new("hostroot");
    tree.folders(&["/etc/cni/net.d", "/opt/cni/bin", "/x"]);
    let before = tree.snapshot();
    let chart = json!({"chrootDir": "/hostroot", "cniConfigDir": "/hostroot/etc/cni/net.d", "binDir": "/hostroot/opt/cni/bin",
        "cniDir": "/hostroot/var/lib/cni/multus", "socketDir": "/hostroot/run/multus/"});
    tree.document(&["install"], &config(&chart));
    assert!(tree.path("/opt/cni/bin/multus-shim").is_file() && tree.path("/var/lib/cni/multus/install").is_dir());
    tree.document(&["uninstall"], &config(&chart));
    tree.assert_is(&before, "uninstall with values of the chart");
    let preset = tree.document(&["install", "--dry-run", "--preset", "k3s"], &config(&json!({})));
    assert_eq!(preset["places"]["binDir"]["path"], "/var/lib/rancher/k3s/data/cni", "{preset:#}");
    let args = ["install", "--dry-run", "--preset", "k3s", "--cni-bin-dir", "/x"];
    assert_eq!(tree.document(&args, &config(&json!({})))["places"]["binDir"]["path"], "/x");
    let unknown = tree.run(&["install", "--preset", "k4s"], &config(&json!({})));
    assert!(unknown.code == Some(2) && unknown.err().contains("k3s-old"), "{}", unknown.err());
}

#[test]
fn the_link_of_an_older_k3s_moves_and_no_plugin_stays_behind_it() {
    needs_programs!();
    let (tree, control) = (Tree::new("moves"), Tree::new("moves"));
    let upgrade = |tree: &Tree| {
        tree.file(&format!("{K3S}/data/bbb/bin/bridge"), "a newer plugin", 0o755)
            .link(&format!("{K3S}/data/current"), "/var/lib/rancher/k3s/data/bbb")
            .link(&format!("{K3S}/data/previous"), "/var/lib/rancher/k3s/data/aaa");
    };
    for tree in [&tree, &control] {
        old_k3s(tree);
        tree.file(&format!("{K3S_CONF}/10-flannel.conflist"), FLANNEL, 0o644);
    }
    tree.document(&["install"], &config(&json!({})));
    upgrade(&tree);
    upgrade(&control);
    tree.document(&["install"], &config(&json!({})));
    for folder in ["aaa", "bbb"] {
        assert!(tree.path(&format!("{K3S}/data/{folder}/bin/multus-shim")).is_file(), "{folder}");
    }
    tree.document(&["uninstall"], &config(&json!({})));
    tree.assert_is(&control.snapshot(), "an upgrade of K3s in between");
}

#[test]
fn what_another_had_in_our_places_comes_back_and_an_older_version_of_ours_does_not() {
    needs_programs!();
    let folders = json!({"cniConfigDir": "/etc/cni/net.d", "binDir": "/opt/cni/bin"});
    let shim = "/opt/cni/bin/multus-shim";
    let tree = Tree::new("multus");
    tree.folders(&["/etc/cni/net.d"]).file(shim, "Multus's own plugin", 0o750);
    std::os::unix::fs::chown(tree.path(shim), Some(1234), Some(4321)).expect("chown");
    let before = tree.snapshot();
    for version in ["1", "2", "3"] {
        let file = tree.root.with_extension("shim");
        fs::write(&file, format!("{SHIM}{version}")).unwrap();
        tree.document(&["install", "--shim", file.to_str().unwrap()], &config(&folders));
        assert!(fs::read_to_string(tree.path(shim)).unwrap().ends_with(version));
    }
    tree.document(&["uninstall"], &config(&folders));
    tree.assert_is(&before, "three versions in the place of Multus's plugin");
    // A link in its place is replaced, not followed.
    tree.link(shim, "/etc/passwd");
    let before = tree.snapshot();
    tree.document(&["install"], &config(&folders));
    assert!(fs::symlink_metadata(tree.path(shim)).unwrap().is_file() && !Path::new("/etc/passwd").is_symlink());
    tree.document(&["uninstall"], &config(&folders));
    tree.assert_is(&before, "a link in the plugin's place");
    // Ours of before there was a log is nobody's.
    fs::remove_file(tree.path(shim)).unwrap();
    let before = tree.snapshot();
    tree.file(shim, &format!("{SHIM}old"), 0o755);
    tree.document(&["install"], &config(&folders));
    tree.document(&["uninstall"], &config(&folders));
    tree.assert_is(&before, "an older version without a log");
}

#[test]
fn what_somebody_changed_since_stays_and_is_told() {
    needs_programs!();
    let folders = json!({"cniConfigDir": "/etc/cni/net.d", "binDir": "/opt/cni/bin"});
    let tree = Tree::new("changed");
    tree.folders(&["/etc/cni/net.d", "/opt/cni/bin"]);
    tree.document(&["install"], &config(&folders));
    tree.file("/opt/cni/bin/multus-shim", "somebody's", 0o755);
    let control = tree.snapshot();
    let done = tree.run(&["uninstall"], &config(&folders));
    assert_eq!(done.code, Some(1), "{}", done.out());
    assert!(
        done.out().contains("multus-shim") && done.out().contains("was changed by somebody else"),
        "{}",
        done.out()
    );
    let mut wanted = control;
    wanted.retain(|path, _| !path.starts_with("var/lib/cni/multus"));
    tree.assert_is(&wanted, "uninstall");
    assert_eq!(tree.run(&["uninstall"], &config(&folders)).code, Some(0));
}

#[test]
fn nothing_is_touched_where_the_folder_of_what_was_before_is_not_to_be_seen() {
    needs_programs!();
    let folders = json!({"cniConfigDir": "/etc/cni/net.d", "binDir": "/opt/cni/bin"});
    let tree = Tree::new("unmounted");
    tree.folders(&["/etc/cni/net.d"]).file("/opt/cni/bin/multus-shim", "Multus's own plugin", 0o750);
    let before = tree.snapshot();
    tree.document(&["install"], &config(&folders));
    let (there, away) = (tree.path("/var/lib/cni/multus"), tree.path("/var/lib/away"));
    fs::rename(&there, &away).expect("hide cniDir");
    let hidden = tree.snapshot();
    for args in [&["uninstall"][..], &["uninstall", "--dry-run"], &["uninstall", "--wait"]] {
        let refused = tree.run(args, &config(&folders));
        assert_eq!(refused.code, Some(1), "{args:?}: {}", refused.out());
        let why = refused.err();
        assert!(why.contains("cniDir") && why.contains("/var/lib/cni/multus") && why.contains("mount it"), "{why}");
        tree.assert_is(&hidden, "a refusal");
    }
    fs::rename(&away, &there).expect("show it again");
    tree.document(&["uninstall"], &config(&folders));
    tree.assert_is(&before, "uninstall");
    let nothing = tree.document(&["uninstall"], &config(&folders));
    assert!(sentences(&nothing).contains("nothing of ours"), "{nothing:#}");
}

#[test]
fn what_was_there_before_is_found_from_wherever_the_host_is_seen_and_never_lost() {
    needs_programs!();
    let folders = json!({"cniConfigDir": "/etc/cni/net.d", "binDir": "/opt/cni/bin"});
    let tree = Tree::new("seen");
    tree.folders(&["/etc/cni/net.d"]).file("/opt/cni/bin/multus-shim", "Multus's own plugin", 0o750);
    let before = tree.snapshot();
    let link = Tree { root: tree.root.with_extension("link") };
    std::os::unix::fs::symlink(&tree.root, &link.root).expect("make a link");
    link.document(&["install"], &config(&folders));
    // The folder of plugins is not to be seen for a while.
    let (there, away) = (tree.path("/opt/cni/bin"), tree.path("/opt/cni/away"));
    fs::rename(&there, &away).expect("hide the plugins");
    let unseen = tree.run(&["uninstall"], &config(&folders));
    assert_eq!(unseen.code, Some(1), "{}", unseen.out());
    assert!(unseen.out().contains("is not to be seen") && unseen.out().contains("--host-root"), "{}", unseen.out());
    fs::rename(&away, &there).expect("show them again");
    // And then the host is seen elsewhere.
    let moved = Tree { root: tree.root.with_extension("moved") };
    fs::rename(&tree.root, &moved.root).expect("move the host");
    moved.document(&["uninstall"], &config(&folders));
    moved.assert_is(&before, "uninstall from elsewhere");
    let nowhere = tree.run(&["install"], &config(&folders));
    assert!(nowhere.code == Some(2) && nowhere.err().contains("--host-root"), "{:?} {}", nowhere.code, nowhere.err());
    assert!(!tree.root.exists(), "no host is made");
}

#[test]
fn a_conf_that_leads_to_a_multus_that_is_gone_is_told_and_left() {
    needs_programs!();
    let folders = json!({"cniConfigDir": "/etc/cni/net.d", "binDir": "/opt/cni/bin"});
    let tree = Tree::new("nobody");
    // As an older installation, or Multus itself, has left it: no log knows it.
    let conf = r#"{"cniVersion":"0.3.1","name":"m","type":"multus-shim","daemonSocketDir":"/run/theirs"}"#;
    tree.folders(&["/opt/cni/bin"]).file("/etc/cni/net.d/70-multus.conf", conf, 0o600).file(
        "/etc/cni/net.d/10-flannel.conflist",
        FLANNEL,
        0o600,
    );
    let before = tree.snapshot();
    let is_told = |done: &Finished| done.out().contains("70-multus.conf\" leads to a Multus");
    for (is_served, code) in [(false, 1), (true, 0)] {
        tree.document(&["install"], &config(&folders));
        let socket = tree.path("/run/theirs/multus.sock");
        let daemon = is_served.then(|| {
            tree.folders(&["/run/theirs"]);
            UnixListener::bind(&socket).expect("listen as Multus does")
        });
        let done = tree.run(&["uninstall"], &config(&folders));
        assert_eq!((done.code, is_told(&done)), (Some(code), !is_served), "{}\n{}", done.out(), done.err());
        assert!(!done.out().contains("10-flannel"), "{}", done.out());
        let again = tree.run(&["uninstall"], &config(&folders));
        assert_eq!((again.code, is_told(&again)), (Some(0), !is_served), "{}\n{}", again.out(), again.err());
        drop(daemon);
        let _ = fs::remove_dir_all(tree.path("/run/theirs"));
        tree.assert_is(&before, "uninstall");
    }
}

#[test]
fn pins_of_this_machine_are_none_of_another_host() {
    needs_programs!();
    let (tree, lab) = (Tree::new("pins"), Lab::new("pins"));
    let pins = lab.bpffs.join("v1/links");
    fs::create_dir_all(&pins).expect("make a folder of pins");
    let mut config = config(&json!({"cniConfigDir": "/etc/cni/net.d", "binDir": "/opt/cni/bin"}));
    config["datapath"]["bpffs"] = lab.bpffs.display().to_string().into();
    tree.document(&["install"], &config);
    tree.document(&["uninstall"], &config);
    assert!(pins.is_dir(), "they are another host's");
}

#[test]
fn the_overlays_have_the_folders_that_are_known_here() {
    let overlays = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kustomize"));
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    let base = read(&overlays.join("base/daemon-config.json")).expect("the base's configuration");
    for preset in Preset::ALL {
        let folder = overlays.join("overlays").join(preset.as_str());
        assert!(folder.is_dir(), "there is no overlay {}", preset.as_str());
        let config = read(&folder.join("daemon-config.json")).unwrap_or_else(|| base.clone());
        let folders = (config["cniConfigDir"].as_str().unwrap(), config["binDir"].as_str().unwrap());
        assert_eq!(folders, (preset.conf_dir(), preset.bin_dir()), "{}", preset.as_str());
    }
}
