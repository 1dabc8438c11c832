//! Whether the agent gets to an API server, and finds it again: watches that are cut, silence, TLS, settings.
#![cfg(test)]

use super::*;

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
