//! Whether what the agent writes gets to the API server: network-status until it is there, events at their pace.
#![cfg(test)]

use super::*;

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
