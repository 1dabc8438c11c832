//! Whether a pod's annotations are found, from the watch or by one look, within the request's time.
#![cfg(test)]

use super::*;

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
