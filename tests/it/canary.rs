//! Canaries: secrets planted wherever one may be put, which must be told to nobody but the plugin they are for.
//!
//! The plugin here is the worst there is: whenever it fails it says everything that it was given, in each of the ways in
//! which a plugin can say something; and when it succeeds, its result may be of what it was given, and none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::apiserver::{ApiServer, EVENTS};
use lab::pod::NETWORK_STATUS;
use lab::runtime::{Answer, Call};
use lab::world::Builder;
use lab::{Pod, World, http, process, wait_until};
use serde_json::{Value, json};

use crate::api::Cluster;

/// What every canary begins with.
const SIGN: &str = "canary-";
/// What the plugin is given: its configuration under keys that name a secret and under keys that do not, the pod's arguments,
/// those of the runtime, and what it inherits.
const GIVEN: [&str; 9] = [
    "canary-password",
    "canary-innocent",
    "canary-in-a-list",
    "canary-in-a-text",
    "canary-nad-argument",
    "canary-pod-pin",
    "canary-pod-place",
    "canary-cni-args",
    "canary-environment",
];
/// Folders whose files hold what a later DEL needs: those are for root alone.
const NEEDED: [&str; 4] = ["records", "networks", "results", "spool"];
const PAGE: &str = "127.0.0.1:9798";
const LIMIT: Duration = Duration::from_secs(30);

/// What a plugin may print that is no result, of `value`: what is wrong with it is said, and that quotes it.
fn no_results(value: &str) -> Vec<String> {
    let all = [
        json!({"cniVersion": "1.0.0", "ips": [{"address": value}]}).to_string(),
        // Sentences cut what they quote, and the half of a secret is one, too.
        json!({"cniVersion": "1.0.0", "routes": [{"dst": "x".repeat(50) + value}]}).to_string(),
        json!({"cniVersion": "1.0.0", "interfaces": {"a": value}}).to_string(),
        format!("no result: {value}"),
    ];
    all.to_vec()
}

fn config() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "told", "type": "teller",
        "password": "canary-password", "site": "canary-innocent", "vendor": {"deep": ["canary-in-a-list"]},
        "delegate": "{\"key\": \"canary-in-a-text\"}", "args": {"cni": {"token": "canary-nad-argument", "phrase": "canary-amp-x&y"}},
    })
}

/// Installs the plugin: it notes what it hears beside its name, and fails as the files beside its name say.
fn install(bin_dir: &Path) {
    let script = r#"#!/bin/sh
conf=$(cat)
{ printf '%s\n' "$conf"; env; } >> "$0.heard"
if [ -e "$0.fails.$CNI_COMMAND" ]; then
    all=$({ env; printf '%s' "$conf"; } | grep -o 'canary-[a-z-]*' | sort -u | grep -v amp | tr '\n' ' ')
    printf '%s %s %s' "$(env)" "$conf" "$all" >&2
    [ -e "$0.object" ] && printf '{"code": 77, "msg": "no luck with %s", "details": "%s"}' "$all" "$all"
    [ -e "$0.garbage" ] && printf '%s' "$conf" | sed 's/&/\\u0026/g'
    exit 1
fi
[ "$CNI_COMMAND" = ADD ] && [ -e "$0.says" ] && cat "$0.says" && exit 0
[ "$CNI_COMMAND" = ADD ] && printf '{"cniVersion": "1.0.0", "interfaces": [{"name": "%s", "sandbox": "%s"}]}' "$CNI_IFNAME" "$CNI_NETNS"
exit 0
"#;
    let plugin = bin_dir.join("teller");
    fs::write(&plugin, script).expect("write a plugin");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("let it be started");
}

struct Planted {
    cluster: Cluster,
    said: Vec<(String, String)>,
}

impl Planted {
    fn new() -> Self {
        let builder = Builder::new("planted");
        install(&builder.lab.bin_dir);
        let api = builder.lab.node.enter(ApiServer::start).expect("start the API-server double");
        api.accept_token("canary-kube-token");
        api.put_network("default", "told", &config().to_string());
        let kubeconfig = api.write_kubeconfig(&builder.lab.dir).expect("write a kubeconfig");
        let mut text: Value = serde_json::from_slice(&fs::read(&kubeconfig).expect("read")).expect("JSON");
        fs::write(builder.lab.dir.join("token"), "canary-kube-token").expect("write a token");
        let other = json!({"name": "other", "user": {"client-key-data": "canary-kube-key", "password": "canary-kube-password"}});
        text["users"].as_array_mut().expect("users").push(other);
        fs::write(&kubeconfig, text.to_string()).expect("write a kubeconfig");
        let mut builder = builder.configure(|config, lab| {
            config.as_object_mut().expect("an object").remove("objects");
            config["kubeconfig"] = json!(kubeconfig);
            config["logLevel"] = "debug".into();
            config["logFile"] = json!(lab.dir.join("agent-file.log"));
            config["pageAddress"] = PAGE.into();
        });
        builder.runtime.version = "1.1.0".into();
        let cluster = Cluster { world: builder.start(), api };
        let listed = || cluster.api.count_watches("network-attachment-definitions") > 0;
        assert!(wait_until(LIMIT, listed), "the agent does not watch networks");
        Self { cluster, said: Vec::new() }
    }

    fn world(&self) -> &World {
        &self.cluster.world
    }

    fn pod(&self, name: &str) -> Pod {
        let networks = json!([{"name": "told", "cni-args": {"pin": "canary-pod-pin", "place": "canary-pod-place"}}]);
        let pod =
            self.world().lab.pod(name).networks(networks.to_string()).annotate("example.com/key", "canary-annotation");
        self.cluster.api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
        pod
    }

    /// Makes the plugin fail, or not: `fails.ADD`, `object`, …
    fn mark(&self, what: &str, is_there: bool) {
        let file = self.world().lab.bin_dir.join(format!("teller.{what}"));
        if is_there { fs::write(file, "").expect("mark") } else { fs::remove_file(file).expect("unmark") }
    }

    /// What came out somewhere.
    fn heard(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.said.push((place.into(), text.into()));
    }

    /// A call as the runtime makes it, with canaries in its arguments and its environment.
    fn call(&mut self, verb: &str, pod: Option<&Pod>) -> Answer {
        let call: Call = self.world().runtime.call(verb, pod).var("VAULT_TOKEN", "canary-environment");
        let call = match pod {
            Some(pod) => call.var("CNI_ARGS", format!("{};VAULT=canary-cni-args", pod.cni_args())),
            None => call.conf(|conf| conf["cni.dev/valid-attachments"] = json!([])),
        };
        let answer = call.run(&self.world().lab.node);
        if let Some(pod) = pod {
            self.world().runtime.remember(pod, &answer);
        }
        self.heard(format!("the answer to {verb}"), answer.describe());
        answer
    }

    fn cli(&mut self, line: &str) -> process::Finished {
        let args: Vec<&str> = line.split(' ').collect();
        let done = self.world().agent.cli(&self.world().lab, &args);
        self.heard(format!("multus-agent {line}"), format!("{}{}", done.out(), done.err()));
        done
    }

    fn sysdump(&mut self) {
        let folder = self.world().lab.dir.join("dump");
        fs::create_dir_all(&folder).expect("make a folder");
        let archive = folder.join("dump.tar.gz").display().to_string();
        assert!(self.cli(&format!("sysdump -w {archive}")).success());
        process::tool(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder));
        for file in fs::read_dir(folder.join("multus-sysdump")).expect("the files").flatten() {
            let text = fs::read_to_string(file.path()).expect("text");
            self.heard(format!("sysdump: {}", file.file_name().display()), text);
        }
    }

    /// Every file of the agent's below `folder`, but those that must hold a plugin's input and that root alone reads.
    fn files(&mut self, folder: &Path, top: Option<&str>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let about = entry.metadata().expect("metadata");
            if about.is_dir() {
                self.files(&entry.path(), Some(top.unwrap_or(&name)));
            } else if about.is_file() {
                let text = String::from_utf8_lossy(&fs::read(entry.path()).expect("read")).into_owned();
                if top.is_some_and(|top| NEEDED.contains(&top)) && text.contains(SIGN) {
                    assert_eq!(about.permissions().mode() & 0o077, 0, "{} is for root alone", entry.path().display());
                } else {
                    self.heard(entry.path().display().to_string(), text);
                }
            }
        }
    }

    fn leaks(&self, from: usize, allowed: &[&str]) -> Vec<String> {
        let said = self.said.iter().skip(from);
        let found = said.filter_map(|(place, text)| {
            let mut words: Vec<&str> = text
                .match_indices(SIGN)
                .map(|(at, _)| {
                    text[at..].split(|c: char| c != '-' && !c.is_ascii_lowercase()).next().unwrap_or_default()
                })
                .collect();
            words.sort_unstable();
            words.dedup();
            words.retain(|word| !allowed.contains(word));
            let first = words
                .first()
                .and_then(|word| text.find(word))
                .map_or("", |at| text.get(at.saturating_sub(120)..).unwrap_or_default());
            let around: String = first.chars().take(200).collect();
            (!words.is_empty()).then(|| format!("{place}: {words:?}: …{around}…"))
        });
        found.collect()
    }
}

#[test]
fn no_canary_is_told_to_anybody_but_its_plugin() {
    needs_programs!();
    let mut planted = Planted::new();

    // Attached; then everything that can be asked of it, while the plugin fails at whatever it is asked.
    let pod = planted.pod("kept");
    planted.call("ADD", Some(&pod)).expect_ok();
    planted.cluster.wait_status(&pod);
    let lost = planted.pod("lost");
    for kind in ["object", "garbage", "words"] {
        planted.mark(kind, true);
        planted.mark("fails.ADD", true);
        let answer = planted.call("ADD", Some(&lost));
        let said = format!("{}", answer.error());
        assert!(
            said.contains("<value of password>") || kind == "garbage",
            "{kind}: it says what it said, without the values: {said}"
        );
        planted.mark(kind, false);
        planted.mark("fails.ADD", false);
        planted.call("DEL", Some(&lost)).expect_ok();
    }
    let says = planted.world().lab.bin_dir.join("teller.says");
    for (at, canary) in GIVEN.iter().enumerate() {
        // Each value once, and one in all the ways.
        for text in no_results(canary).iter().take(if at == GIVEN.len() - 1 { usize::MAX } else { 1 }) {
            fs::write(&says, text).expect("have it say something");
            let answer = planted.call("ADD", Some(&lost));
            let said = format!("{}", answer.error());
            assert!(said.contains("result of plugin") && !said.contains("canary"), "{text}: {said}");
        }
    }
    fs::remove_file(&says).expect("have it say what it should");
    planted.mark("object", true);
    for verb in ["CHECK", "STATUS", "GC", "DEL"] {
        planted.mark(&format!("fails.{verb}"), true);
    }
    assert!(!planted.call("CHECK", Some(&pod)).ok(), "a CHECK whose plugin fails");
    planted.call("STATUS", None);
    let heard = fs::read_to_string(planted.world().lab.bin_dir.join("teller.heard")).expect("what the plugin heard");
    for canary in GIVEN {
        assert!(heard.contains(canary), "the plugin was never given {canary}: {heard}");
    }

    let mut lines =
        vec!["check".to_owned(), "check -o json".into(), "status -o json".into(), "config view -o json".into()];
    for what in ["attachments", "networks", "relay", "services", "parents", "delegates", "programs", "refusals"] {
        lines.extend([format!("get {what}"), format!("get {what} -o json"), format!("get {what} -o yaml")]);
    }
    for format in ["table", "json"] {
        lines.extend(
            [
                "trace",
                "trace --failed",
                "describe attachment default/kept",
                "describe network told",
                "describe delegates teller",
                "describe refusals 1",
            ]
            .map(|line| format!("{line} -o {format}")),
        );
    }
    lines.push(format!(
        "capture --attachment default/kept/eth0 --for 1s -w {}",
        planted.world().lab.dir.join("x.pcapng").display()
    ));
    for line in &lines {
        let done = planted.cli(line);
        assert!(done.code != Some(2), "{line}: {}", done.err());
    }
    planted.sysdump();
    for (address, path) in [(lab::agent::METRICS, "/metrics"), (PAGE, "/")] {
        let reply = http::get_tcp(&planted.world().lab.node, address, path).expect("a page");
        planted.heard(format!("{address}{path}"), reply.body);
    }

    // A DEL that fails, with an agent and without one; and what everybody wrote meanwhile.
    planted.call("DEL", Some(&pod));
    let gone = planted.pod("gone");
    planted.mark("fails.DEL", false);
    planted.call("ADD", Some(&gone)).expect_ok();
    planted.mark("fails.DEL", true);
    planted.call("GC", None);
    let told = || planted.cluster.api.all(EVENTS).iter().any(|event| event["type"] == "Warning");
    assert!(wait_until(LIMIT, told), "the pod is told");
    planted.sysdump();
    planted.cluster.world.agent.kill9();
    planted.call("DEL", Some(&gone)).expect_ok();
    // The next agent does what was left to it.
    let Cluster { world, .. } = &mut planted.cluster;
    world.agent.start_again(&world.lab);
    let spool = planted.world().lab.cni_dir.join("spool");
    let replayed = || fs::read_dir(&spool).is_ok_and(|left| left.count() == 0);
    assert!(wait_until(LIMIT, replayed), "the note is done with");
    planted.cli("trace --last 20 -o json");
    planted.cli("status -o json");

    let written: Vec<_> = planted.cluster.api.seen().into_iter().filter(|seen| seen.method != "GET").collect();
    assert!(
        written.iter().any(|seen| seen.path.ends_with("/events"))
            && written.iter().any(|seen| seen.body.to_string().contains(NETWORK_STATUS))
    );
    for seen in written {
        planted.heard(format!("{} {}", seen.method, seen.path), seen.body.to_string());
    }
    let lab = &planted.world().lab;
    let folders = [lab.cni_dir.clone(), lab.socket_dir.clone(), lab.cni_conf_dir.clone(), lab.dir.join("devinfo")];
    let log =
        planted.world().agent.log_text() + &fs::read_to_string(lab.dir.join("agent-file.log")).expect("the log file");
    assert!(log.contains("<value of password>"), "the log says what failed");
    planted.heard("the log", log);
    for folder in folders {
        planted.files(&folder, None);
    }
    let leaks = planted.leaks(0, &[]);
    assert!(leaks.is_empty(), "{} places tell:\n{}", leaks.len(), leaks.join("\n"));
}

#[test]
fn explain_shows_the_operator_the_input_without_what_is_named_a_secret() {
    needs_programs!();
    let mut planted = Planted::new();
    let pod = planted.pod("web");
    planted.cli(&format!("explain pod {}", pod.name));
    planted.cli(&format!("explain pod {} -o json", pod.name));
    // On the node, for root, and to see what a plugin would get: what no key calls a secret is shown there.
    let shown = ["canary-innocent", "canary-in-a-list", "canary-in-a-text", "canary-pod-place", "canary-amp-x"];
    assert!(planted.said.iter().any(|(_, text)| text.contains("canary-innocent")), "{:#?}", planted.said);
    let leaks = planted.leaks(0, &shown);
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

#[test]
fn a_kubeconfig_that_cannot_be_read_is_not_quoted() {
    needs_programs!();
    let builder = Builder::new("kubeconfigs");
    let file = builder.lab.dir.join("kubeconfig");
    for text in [
        "users: canary-a",
        "users: [{name: a, user: {token: [canary-b]}}]",
        "canary-c: [",
        "\"canary-d",
        "users: [{name: a, user: {token: canary-e}}]\ncanary",
        "{\"clusters\": [{\"name\": \"a\", \"cluster\": {\"server\": \"https://u:canary-f@host:x\"}}], \"contexts\": [{\"name\": \"a\", \"context\": {\"cluster\": \"a\", \"user\": \"a\"}}], \"users\": [{\"name\": \"a\", \"user\": {\"client-key-data\": \"canary-g\"}}]}",
    ] {
        fs::write(&file, text).expect("write");
        let mut config = builder.config.clone();
        config.as_object_mut().expect("an object").remove("objects");
        config["kubeconfig"] = json!(file);
        let path = builder.lab.dir.join("config.json");
        fs::write(&path, config.to_string()).expect("write");
        let mut command = builder.lab.node.command(lab::agent::program("multus-agent"));
        let done = process::run(command.args(["run", "--config"]).arg(&path), b"", Duration::from_secs(3));
        let said = format!("{}{}", done.out(), done.err());
        assert!(said.contains("kubeconfig") && !said.contains("canary"), "{text}: {said}");
    }
}
