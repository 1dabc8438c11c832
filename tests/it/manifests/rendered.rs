//! What a kustomization or the chart comes to: objects by kind and name. Judges nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// Every overlay there is; the chart's presets have the same names.
pub(super) const OVERLAYS: [&str; 13] = [
    "cri-o",
    "eks",
    "gke",
    "k0s",
    "k3s",
    "k3s-old",
    "kind",
    "kubeadm",
    "microk8s",
    "openshift",
    "rke2",
    "talos",
    "talos-var",
];
/// Every component there is.
pub(super) const COMPONENTS: [&str; 7] =
    ["admission-policies", "conf-dir", "host-exec", "monitoring", "old-kernel", "reflect", "uninstall"];

/// Objects by kind, namespace and name.
pub(super) type Objects = BTreeMap<(String, String, String), Value>;

/// The project's folder.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}

/// A file of the project.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Where `cargo xtask setup` has put the libraries: beside this test's own folder.
pub(super) fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    test.ancestors().nth(3).expect("target/PROFILE/deps/it").join("kubernetes")
}

/// Why nothing can be rendered here; `None`: it can.
pub(super) fn missing() -> Option<String> {
    let installed = libraries().join(".installed").is_file();
    (!installed).then(|| "no kustomize and helm in target/kubernetes: run `cargo xtask setup`".to_owned())
}

/// The program that renders: started once, for it takes longer to start than to render.
struct Renderer {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Renderer {
    #[expect(clippy::zombie_processes, reason = "it ends with this process")]
    fn start() -> Self {
        let mut python = Command::new("python3");
        python.arg(root().join("xtask/kubernetes.py")).arg("serve").env("PYTHONPATH", libraries());
        // It ends with its standard input, which is to say with this process.
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start python3");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { input, output: BufReader::new(output) }
    }

    fn ask(&mut self, words: &[&str]) -> Value {
        writeln!(self.input, "{}", json!(words)).expect("ask the renderer");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("hear the renderer");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{words:?}: {error}: {line:?}"))
    }
}

/// Has `xtask/kubernetes.py` do something; the sentence of its refusal otherwise.
pub(super) fn kubernetes(words: &[&str]) -> Result<String, String> {
    static RENDERER: Mutex<Option<Renderer>> = Mutex::new(None);
    let mut renderer = RENDERER.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = renderer.get_or_insert_with(Renderer::start).ask(words);
    match (answer["text"].as_str(), answer["refused"].as_str()) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, refusal) => Err(refusal.expect("a refusal").to_owned()),
    }
}

/// A folder for one test, removed with this value.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("multus-manifests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("make a folder");
        Self(folder)
    }

    pub(super) fn put(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("write a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    pub(super) fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the folder of a kustomization comes to.
pub(super) fn kustomization(folder: &str) -> Objects {
    objects(&kubernetes(&["json", folder]).unwrap_or_else(|complaint| panic!("{complaint}")))
}

/// An overlay with components.
pub(super) fn overlay(overlay: &str, components: &[&str]) -> Objects {
    let kustomize = root().join("deploy/kustomize");
    if components.is_empty() {
        return kustomization(kustomize.join("overlays").join(overlay).to_str().expect("a path in UTF-8"));
    }
    let scratch = Scratch::new();
    // Kustomize takes no absolute paths.
    let up = "../".repeat(scratch.0.components().count() - 1);
    let at = format!("{up}{}", kustomize.to_str().expect("a path in UTF-8").trim_start_matches('/'));
    let listed: Vec<String> = components.iter().map(|name| format!("{at}/components/{name}")).collect();
    scratch.put(
        "kustomization.yaml",
        &format!("resources: [{at}/overlays/{overlay}]\ncomponents: [{}]\n", listed.join(", ")),
    );
    kustomization(scratch.path())
}

/// A file of `deploy/manifests`.
pub(super) fn manifest(name: &str) -> Objects {
    let scratch = Scratch::new();
    scratch.put("all.yaml", &read(&format!("deploy/manifests/{name}.yaml")));
    scratch.put("kustomization.yaml", "resources: [all.yaml]\n");
    kustomization(scratch.path())
}

/// The chart with `values`; the sentence of its refusal otherwise.
pub(super) fn chart(values: &Value) -> Result<Objects, String> {
    let scratch = Scratch::new();
    let file = scratch.put("values.json", &values.to_string());
    let folder = root().join("deploy/helm/multus-ebpf");
    let folder = folder.to_str().expect("a path in UTF-8");
    let rendered = kubernetes(&["chart", folder, "multus-ebpf", "multus-ebpf", &file])?;
    let templates: BTreeMap<String, String> = serde_json::from_str(&rendered).expect("templates");
    let texts: Vec<&str> =
        templates.iter().filter(|(path, _)| !path.ends_with("NOTES.txt")).map(|(_, text)| text.as_str()).collect();
    // Kustomize reads YAML for us, and says it as JSON.
    let scratch = Scratch::new();
    scratch.put("all.yaml", &texts.join("\n---\n"));
    scratch.put("kustomization.yaml", "resources: [all.yaml]\n");
    Ok(kustomization(scratch.path()))
}

fn objects(json: &str) -> Objects {
    let document: Value = serde_json::from_str(json).expect("JSON");
    let list = document["resources"].as_array().expect("a list of objects").clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let key = |object: &Value| {
        (text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
    };
    list.into_iter().map(|object| (key(&object), object)).collect()
}

/// The one object of a kind whose name is ours.
pub(super) fn ours<'a>(objects: &'a Objects, kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|((k, _, n), _)| k == kind && n == name);
    found.map_or_else(|| panic!("no {kind} {name}"), |(_, object)| object)
}

/// `daemon-config.json`, as text.
pub(super) fn config(objects: &Objects) -> String {
    let map = ours(objects, "ConfigMap", "multus-ebpf-config");
    map["data"]["daemon-config.json"].as_str().expect("daemon-config.json").to_owned()
}

/// The pod of the DaemonSet.
pub(super) fn pod(objects: &Objects) -> &Value {
    &ours(objects, "DaemonSet", "multus-ebpf")["spec"]["template"]["spec"]
}

/// Every pod of a set of objects, with the name of its owner.
pub(super) fn pods(objects: &Objects) -> Vec<(String, &Value)> {
    let spec = |((kind, _, name), object)| {
        let object: &Value = object;
        let spec = if kind == "Pod" { &object["spec"] } else { &object["spec"]["template"]["spec"] };
        (format!("{kind} {name}"), spec)
    };
    let found =
        objects.iter().map(|((kind, space, name), object)| spec(((kind.clone(), space.clone(), name.clone()), object)));
    found.filter(|(_, spec)| spec["containers"].is_array()).collect()
}

/// Every container of a pod.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| pod[list].as_array().into_iter().flatten())
}
