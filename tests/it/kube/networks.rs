//! Whether networks are known as the API server has them, at once and while it is away.
#![cfg(test)]

use super::*;

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
async fn without_a_source_the_answer_says_so() {
    let folder = Folder::new();
    let (_stop, stopped) = watch::channel(false);
    let cluster = Cluster::connect(folder.settings(Source::None), stopped).await.unwrap();
    let error = cluster.find_network(&nad("x", "a"), deadline()).await.unwrap_err();
    assert!(error.to_string().contains("neither an API server nor a folder"), "{error}");
}
