//! Whether the agent's view of a cluster follows an API server through everything that happens to one, and a folder.
//!
//! Runs against the API-server double on loopback; needs no privilege.
#![cfg(test)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lab::apiserver::{ApiServer, EVENTS, NETWORKS, PODS};
use multus_agent::fault::CniError;
use multus_agent::kube::{Cluster, ClusterError, ClusterSettings, EventKind, Source};
use multus_agent::names::{NadRef, ObjectName, PodRef};
use multus_agent::objects::annotation;
use tokio::sync::watch;

/// Longest wait for what happens in the background.
const SOON: Duration = Duration::from_secs(15);
const NODE: &str = "node-1";

/// A folder of this test's own; those of killed runs are swept.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let name = format!("multus-it-kube-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("networks")).unwrap();
        std::fs::create_dir_all(path.join("objects")).unwrap();
        Self(path)
    }

    fn settings(&self, source: Source) -> ClusterSettings {
        ClusterSettings {
            source,
            node_name: Some(NODE.to_owned()),
            networks_dir: self.0.join("networks"),
            annotations_from_runtime: false,
            quiet: Duration::from_millis(400),
            once: false,
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join("objects").join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A task that is just ending may still write what it had in hand.
        for _ in 0..5 {
            drop(std::fs::remove_dir_all(&self.0));
            std::thread::sleep(Duration::from_millis(20));
            if !self.0.exists() {
                return;
            }
        }
    }
}

fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("multus-it-kube-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// A cluster over the double, and what keeps both alive.
struct Bench {
    api: ApiServer,
    folder: Folder,
    cluster: Cluster,
    stop: watch::Sender<bool>,
}

impl Bench {
    async fn new() -> Self {
        Self::over(ApiServer::start().unwrap(), Folder::new()).await
    }

    async fn over(api: ApiServer, folder: Folder) -> Self {
        let kubeconfig = Some(api.write_kubeconfig(&folder.0).unwrap());
        let (stop, stopped) = watch::channel(false);
        let cluster = Cluster::connect(folder.settings(Source::Api { kubeconfig }), stopped).await.unwrap();
        Self { api, folder, cluster, stop }
    }

    /// The same server and disk, seen by a new agent.
    async fn restarted(self) -> Self {
        self.stop.send_replace(true);
        Self::over(self.api, self.folder).await
    }

    async fn synced(&self) {
        until("networks synced", || self.cluster.health().networks_synced).await;
    }

    fn status_of(&self, namespace: &str, name: &str) -> Option<String> {
        let pod = self.api.get(PODS, namespace, name)?;
        pod["metadata"]["annotations"][annotation::NETWORK_STATUS].as_str().map(str::to_owned)
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn nad(namespace: &str, name: &str) -> NadRef {
    NadRef::new(namespace, name).unwrap()
}

fn pod(name: &str, uid: Option<&str>) -> PodRef {
    let object = |text| ObjectName::new(text).unwrap();
    PodRef { namespace: object("x"), name: object(name), uid: uid.map(str::to_owned) }
}

fn deadline() -> Instant {
    Instant::now() + SOON
}

fn selects(networks: &str) -> serde_json::Value {
    serde_json::json!({ annotation::NETWORKS: networks, "other.example/key": "dropped" })
}

fn config_of(cluster: &Cluster, id: &NadRef) -> Option<String> {
    cluster.network(id).and_then(|network| network.config.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_are_listed_followed_and_forgotten() {
    let api = ApiServer::start().unwrap();
    for number in 0..3 {
        api.put_network("x", &format!("n{number}"), "{}");
    }
    let bench = Bench::over(api, Folder::new()).await;
    bench.synced().await;
    assert_eq!(bench.cluster.networks().len(), 3);

    bench.api.put_network("y", "later", "1");
    let found = bench.cluster.find_network(&nad("y", "later"), deadline()).await.unwrap();
    assert_eq!(found.config.as_deref(), Some("1"));
    bench.api.put_network("y", "later", "2");
    until("changed", || config_of(&bench.cluster, &nad("y", "later")).as_deref() == Some("2")).await;
    bench.api.delete(NETWORKS, "y", "later");
    until("deleted", || bench.cluster.network(&nad("y", "later")).is_none()).await;

    let before = Instant::now();
    let error = bench.cluster.find_network(&nad("y", "later"), deadline()).await.unwrap_err();
    assert!(matches!(error, ClusterError::NotFound { .. }), "{error}");
    assert!(before.elapsed() < Duration::from_secs(3), "a missing network is not waited for long");
    assert_eq!(CniError::from(error).code, 101);
    assert_eq!(bench.api.count("GET", "/network-attachment-definitions/"), 0, "never a request per ADD");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_created_just_after_it_was_asked_for_is_found() {
    let bench = Bench::new().await;
    bench.synced().await;
    let (cluster, id) = (bench.cluster.clone(), nad("x", "young"));
    let asked = tokio::spawn(async move { cluster.find_network(&id, deadline()).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.api.put_network("x", "young", "{}");
    assert!(asked.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_being_cut_and_gone_and_refused() {
    let bench = Bench::new().await;
    bench.synced().await;
    let path = "/network-attachment-definitions";
    bench.api.put_network("x", "kept", "{}");
    bench.api.put_network("x", "lost", "{}");
    until("both seen", || bench.cluster.networks().len() == 2).await;

    bench.api.fail("WATCH", path, 2, 500);
    bench.api.cut_watches();
    bench.api.put_network("x", "after-cut", "{}");
    until("seen after the cut", || bench.cluster.network(&nad("x", "after-cut")).is_some()).await;

    // The watch comes back with a version that is gone, in both ways a server says so.
    for status in [None, Some(410)] {
        let lists = bench.api.count("GET", path);
        bench.api.stall_watches(true);
        bench.api.delete(NETWORKS, "x", "lost");
        bench.api.put_network("x", "after-gone", &format!("{status:?}"));
        bench.api.compact();
        if let Some(status) = status {
            bench.api.fail("WATCH", path, 1000, status);
        }
        bench.api.cut_watches();
        bench.api.stall_watches(false);
        let current = || config_of(&bench.cluster, &nad("x", "after-gone")) == Some(format!("{status:?}"));
        until("listed again after 410", current).await;
        bench.api.heal();
        assert!(bench.api.count("GET", path) > lists, "a new list is what proves the deletion");
        until("the end of the list", || bench.cluster.network(&nad("x", "lost")).is_none()).await;
        assert!(bench.cluster.network(&nad("x", "kept")).is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_on_disk_serve_while_the_server_is_down() {
    let bench = Bench::new().await;
    bench.api.put_network("x", "old", "{\"type\":\"macvlan\"}");
    bench.api.put_network("x", "deleted-meanwhile", "{}");
    let kept = bench.folder.0.join("networks");
    until("kept on disk", || std::fs::read_dir(&kept).unwrap().count() == 2).await;
    bench.api.set_down(true);
    until("loss noticed", || !bench.cluster.health().connected).await;

    let bench = bench.restarted().await;
    assert_eq!(config_of(&bench.cluster, &nad("x", "old")).as_deref(), Some("{\"type\":\"macvlan\"}"));
    let health = bench.cluster.health();
    assert!(!health.connected && !health.networks_synced, "{health:?}");
    let soon = Instant::now() + Duration::from_millis(200);
    let error = bench.cluster.find_network(&nad("x", "unknown"), soon).await.unwrap_err();
    assert!(matches!(error, ClusterError::Unavailable { .. }), "nobody knows: {error}");
    assert_eq!(CniError::from(error).code, 11);
    until("why is said", || bench.cluster.health().last_error.is_some()).await;

    bench.api.delete(NETWORKS, "x", "deleted-meanwhile");
    bench.api.set_down(false);
    bench.synced().await;
    assert!(bench.cluster.network(&nad("x", "deleted-meanwhile")).is_none());
    until("removed from disk", || std::fs::read_dir(&kept).unwrap().count() == 1).await;
    let health = bench.cluster.health();
    assert!(health.connected && health.last_contact.is_some(), "{health:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_from_the_watch_without_a_get() {
    let bench = Bench::new().await;
    bench.api.put_pod("x", "mine", "u1", NODE, &selects("iot"));
    bench.api.put_pod("x", "elsewhere", "u2", "node-2", &selects("iot"));
    until("watched", || bench.cluster.health().pods == 1).await;
    let found = bench.cluster.pod(&pod("mine", Some("u1")), deadline()).await.unwrap();
    assert_eq!(found.annotations.get(annotation::NETWORKS).map(String::as_str), Some("iot"));
    assert_eq!(found.annotations.len(), 1, "others are dropped");
    assert_eq!(bench.api.count_of_pod("GET", "x", "mine"), 0);
    assert_eq!(bench.cluster.health().gets, 0);

    let watches: Vec<_> = bench.api.seen().into_iter().filter(|seen| seen.path.ends_with("/pods")).collect();
    assert!(watches.iter().all(|seen| seen.had_token), "the token file is used: {watches:?}");
    assert!(watches.iter().all(|seen| seen.query.contains("spec.nodeName%3Dnode-1")), "{watches:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_watch_costs_one_get() {
    let bench = Bench::new().await;
    bench.api.put_pod("x", "a", "old", NODE, &selects("before"));
    until("watched", || bench.cluster.health().pods == 1).await;
    bench.api.stall_watches(true);
    bench.api.delete(PODS, "x", "a");
    bench.api.put_pod("x", "a", "new", NODE, &selects("after"));
    let found = bench.cluster.pod(&pod("a", Some("new")), deadline()).await.unwrap();
    assert_eq!(found.annotations.get(annotation::NETWORKS).map(String::as_str), Some("after"));
    assert_eq!(bench.api.count_of_pod("GET", "x", "a"), 1);

    let error = bench.cluster.pod(&pod("a", Some("third")), deadline()).await.unwrap_err();
    assert!(matches!(&error, ClusterError::OtherPod { found, .. } if found == "new"), "{error}");
    let error = bench.cluster.pod(&pod("nobody", None), deadline()).await.unwrap_err();
    assert!(matches!(error, ClusterError::NotFound { .. }), "{error}");
    assert_eq!(bench.api.count_of_pod("GET", "x", "nobody"), 1);
    assert_eq!(bench.cluster.health().gets, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_read_keeps_its_deadline() {
    let bench = Bench::new().await;
    bench.api.put_pod("x", "a", "u", "node-2", &selects("iot"));
    bench.synced().await;
    bench.api.fail("GET", "/pods/a", 1, 503);
    assert!(bench.cluster.pod(&pod("a", Some("u")), deadline()).await.is_ok(), "one 503 is not the end");
    bench.api.set_latency(Duration::from_secs(5));
    let begun = Instant::now();
    let error = bench.cluster.pod(&pod("a", Some("u")), begun + Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, ClusterError::Unavailable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_pod_has_a_uid_of_its_own() {
    let bench = Bench::new().await;
    let mirror = serde_json::json!({
        "kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "hash", "kubernetes.io/config.mirror": "hash",
    });
    bench.api.put_pod("x", "static", "api-uid", NODE, &mirror);
    let found = bench.cluster.pod(&pod("static", Some("hash")), deadline()).await.unwrap();
    assert!(found.is_static);
    bench.cluster.report_status(&pod("static", Some("hash")), "[]".into());
    until("reported", || bench.status_of("x", "static").is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_gets_there_through_everything() {
    let bench = Bench::new().await;
    bench.synced().await;
    bench.api.put_pod("x", "a", "u", NODE, &selects("iot"));
    for status in [500, 409, 429, 401, 503] {
        bench.api.fail("PATCH", "/pods/a/status", 1, status);
    }
    bench.cluster.report_status(&pod("a", Some("u")), "[1]".into());
    until("written", || bench.status_of("x", "a").as_deref() == Some("[1]")).await;
    until("nothing pending", || bench.cluster.health().reports_pending == 0).await;
    assert_eq!(bench.cluster.health().reports_retried, 5);
    let patches: Vec<_> = bench.api.seen().into_iter().filter(|seen| seen.method == "PATCH").collect();
    assert!(patches.iter().all(|seen| seen.body["metadata"]["uid"] == "u"), "{patches:?}");
    let after = bench.api.get(PODS, "x", "a").unwrap();
    assert_eq!(after["metadata"]["annotations"][annotation::NETWORKS], "iot", "other annotations stay");

    bench.api.set_down(true);
    bench.cluster.report_status(&pod("a", Some("u")), "[2]".into());
    bench.cluster.report_status(&pod("a", Some("u")), "[3]".into());
    until("tried in vain", || bench.cluster.health().reports_retried > 5).await;
    bench.api.set_down(false);
    until("written after the outage", || bench.status_of("x", "a").as_deref() == Some("[3]")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_never_written_to_another_pod_of_the_name() {
    let bench = Bench::new().await;
    bench.api.put_pod("x", "a", "new", NODE, &selects("iot"));
    for status in [409, 422] {
        bench.api.answer_wrong_uid_with(status);
        bench.cluster.report_status(&pod("a", Some("old")), "[]".into());
        until("dropped", || bench.cluster.health().reports_pending == 0).await;
    }
    bench.cluster.report_status(&pod("gone", Some("u")), "[]".into());
    until("dropped", || bench.cluster.health().reports_pending == 0).await;
    assert_eq!(bench.cluster.health().reports_dropped, 3);
    assert_eq!(bench.status_of("x", "a"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_posted_and_paced() {
    let bench = Bench::new().await;
    bench.api.fail("POST", "/events", 2, 500);
    let message = "Add net1 [10.0.0.2/24] from x/iot";
    bench.cluster.event(&pod("a", Some("u")), EventKind::Normal, "AddedInterface", message);
    until("posted", || bench.api.all(EVENTS).len() == 1).await;
    let event = &bench.api.all(EVENTS)[0];
    assert_eq!(event["source"]["component"], "multus");
    assert_eq!(event["type"], "Normal");
    assert_eq!(event["reason"], "AddedInterface");
    assert_eq!(event["message"], message);
    assert_eq!(event["involvedObject"]["uid"], "u");
    assert_eq!(event["metadata"]["namespace"], "x");

    for number in 0..1000 {
        bench.cluster.event(&pod("a", Some("u")), EventKind::Warning, "NoNetworkFound", &format!("x{number}"));
    }
    let health = bench.cluster.health();
    assert!(health.events_dropped >= 400, "the queue is bounded: {health:?}");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let posted = bench.api.all(EVENTS).len();
    assert!((50..200).contains(&posted), "a burst of 100, then 20 a second: {posted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_noticed_and_found_again() {
    let bench = Bench::new().await;
    bench.synced().await;
    until("connected", || bench.cluster.health().connected).await;
    let watches = bench.api.count_watches("network-attachment-definitions");
    bench.api.stall_watches(true);
    bench.api.set_latency(Duration::from_secs(2));
    until("missed", || !bench.cluster.health().connected).await;
    let said = bench.cluster.health().last_error.unwrap_or_default();
    assert!(said.contains("no answer within 400 ms"), "{said}");
    bench.api.set_latency(Duration::ZERO);
    bench.api.stall_watches(false);
    bench.api.put_network("x", "new", "{}");
    until("found again", || bench.cluster.health().connected && bench.cluster.network(&nad("x", "new")).is_some())
        .await;
    let again = bench.api.count_watches("network-attachment-definitions");
    assert!(again > watches, "the old connection would hang for minutes: {again} watches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_is_asked_for_a_sign_of_life_only_in_silence() {
    let bench = Bench::new().await;
    bench.synced().await;
    let asked = || bench.api.count("GET", "/version");
    until("asked", || asked() >= 2).await;
    let (before, began) = (asked(), Instant::now());
    tokio::time::sleep(Duration::from_millis(900)).await;
    let most = 1 + began.elapsed().as_millis() as usize / 400;
    assert!(asked() - before <= most, "{} questions in {:?}", asked() - before, began.elapsed());
    assert!(bench.cluster.health().connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_stands_in_for_the_server_and_is_followed() {
    let folder = Folder::new();
    let nad_text = |name: &str| {
        format!(
            "kind: NetworkAttachmentDefinition\nmetadata: {{name: {name}, namespace: x}}\nspec: {{config: '{{}}'}}\n"
        )
    };
    folder.write(
        "a.yaml",
        &format!(
            "{}---\nkind: Pod\nmetadata: {{name: p, namespace: x, uid: u, annotations: {{{}: a}}}}\n",
            nad_text("a"),
            annotation::NETWORKS
        ),
    );
    let (_stop, stopped) = watch::channel(false);
    let source = Source::Folder(folder.0.join("objects"));
    let cluster = Cluster::connect(folder.settings(source), stopped).await.unwrap();
    assert!(cluster.network(&nad("x", "a")).is_some(), "there at once");
    let found = cluster.pod(&pod("p", Some("u")), deadline()).await.unwrap();
    assert_eq!(found.annotations[annotation::NETWORKS], "a");
    assert!(matches!(cluster.pod(&pod("p", Some("v")), deadline()).await, Err(ClusterError::OtherPod { .. })));

    folder.write("b.yaml", &nad_text("b"));
    cluster.find_network(&nad("x", "b"), deadline()).await.unwrap();
    folder.write(
        "b.yaml",
        &format!(
            "{}---\nkind: NetworkAttachmentDefinition\nmetadata: {{name: c}}\nspec: {{config: 5}}\n---\n{}",
            nad_text("b"),
            nad_text("d")
        ),
    );
    cluster.find_network(&nad("x", "d"), deadline()).await.unwrap();
    assert!(cluster.network(&nad("x", "b")).is_some());
    let refusals = cluster.health().refusals;
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].contains("b.yaml") && refusals[0].contains("document 2: spec.config"), "{refusals:?}");

    std::fs::remove_file(folder.0.join("objects/b.yaml")).unwrap();
    until("gone with the file", || cluster.network(&nad("x", "b")).is_none()).await;
    assert_eq!(cluster.health().refusals, Vec::<String>::new());
    assert!(matches!(cluster.find_network(&nad("x", "b"), deadline()).await, Err(ClusterError::NotFound { .. })));
    cluster.report_status(&pod("p", Some("u")), "[]".into());
    assert_eq!(cluster.health().reports_pending, 0, "the record keeps it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_takes_the_double_for_a_server() {
    let folder = Folder::new();
    let api = ApiServer::start().unwrap();
    let kubeconfig = api.write_kubeconfig(&folder.0).unwrap();
    api.put_network("x", "iot", "{}");
    api.put_pod("x", "a", "u", NODE, &selects("iot"));
    let kubectl = |words: &[&str]| {
        let mut command = std::process::Command::new("kubectl");
        command.arg("--kubeconfig").arg(&kubeconfig).arg("--cache-dir").arg(folder.0.join("cache")).args(words);
        command.output()
    };
    let Ok(listed) = kubectl(&["get", "net-attach-def,pods", "--all-namespaces", "--output=name"]) else {
        eprintln!("skipped: no kubectl here");
        return;
    };
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(text.contains("/iot") && text.contains("pod/a"), "{listed:?}");
    let annotated = kubectl(&["annotate", "pod", "a", "--namespace=x", "k=v"]).unwrap();
    assert!(annotated.status.success(), "{annotated:?}");
    assert_eq!(api.get(PODS, "x", "a").unwrap()["metadata"]["annotations"]["k"], "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_source_the_answer_says_so() {
    let folder = Folder::new();
    let (_stop, stopped) = watch::channel(false);
    let cluster = Cluster::connect(folder.settings(Source::None), stopped).await.unwrap();
    let error = cluster.find_network(&nad("x", "a"), deadline()).await.unwrap_err();
    assert!(error.to_string().contains("neither an API server nor a folder"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_work_are_refused_with_their_name() {
    let folder = Folder::new();
    let (_stop, stopped) = watch::channel(false);
    let kubeconfig = Some(folder.0.join("missing"));
    let error = Cluster::connect(folder.settings(Source::Api { kubeconfig }), stopped).await.unwrap_err();
    assert!(matches!(error, ClusterError::Settings(_)) && error.to_string().contains("missing"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_tls_needs_no_set_up_of_ours() {
    let folder = Folder::new();
    let path = folder.0.join("kubeconfig");
    let config = "{clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: u, user: {token: t}}], \
                  contexts: [{name: c, context: {cluster: c, user: u}}]}";
    std::fs::write(&path, config).unwrap();
    let (_stop, stopped) = watch::channel(false);
    let source = Source::Api { kubeconfig: Some(path) };
    let cluster = Cluster::connect(folder.settings(source), stopped).await.unwrap();
    until("refused", || cluster.health().last_error.is_some_and(|error| error.contains("refused"))).await;
}
