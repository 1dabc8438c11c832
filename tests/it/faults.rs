//! What an API server that is absent, slow, unwilling or cut off does to pods: they come up, or a true sentence says why not.
//!
//! Nothing hangs past its deadline, and nothing has to be restarted once the API server is well again.

use std::time::{Duration, Instant};

use lab::apiserver::NETWORKS;
use lab::world::Builder;
use lab::{Pod, wait_until};
use serde_json::{Value, json};

use crate::api::Cluster;

const NADS: &str = "network-attachment-definitions";

/// A cluster whose runtime does not know annotations, so that every pod has to be found.
fn asking(name: &str) -> Cluster {
    let mut cluster = Cluster::new(name);
    cluster.world.runtime.gives_annotations = false;
    cluster
}

/// The line of `status` about the cluster.
fn line(cluster: &Cluster) -> Value {
    let done = cluster.world.agent.cli(&cluster.world.lab, &["status", "-o", "json"]);
    let status: Value = serde_json::from_slice(&done.stdout).expect("a status document");
    let lines = status["subsystems"].as_array().cloned().unwrap_or_default();
    lines.into_iter().find(|line| line["name"] == "cluster").expect("a line about the cluster")
}

fn path_of(pod: &Pod) -> String {
    format!("/pods/{}", pod.name)
}

fn attached(cluster: &Cluster, pod: &Pod, what: &str) -> Duration {
    let add = cluster.world.add(pod);
    assert!(add.ok(), "{what}: {}", add.describe());
    assert!(pod.netns.link("net1").is_some(), "{what}: no net1");
    cluster.world.del(pod).expect_ok();
    add.done.took
}

#[test]
fn a_pod_comes_up_as_soon_as_the_api_server_relents() {
    needs_programs!();
    let cluster = asking("relents");
    attached(&cluster, &cluster.pod("first"), "the first pod, which starts the watch");
    for (number, code) in [409, 429, 500, 401].into_iter().enumerate() {
        let pod = cluster.pod(&format!("cam{number}"));
        // The watch knows nothing of the other one, and its first read is refused.
        cluster.api.stall_watches(true);
        let unknown = cluster.pod(&format!("late{number}"));
        cluster.api.fail("GET", &path_of(&unknown), 1, code);
        let took = attached(&cluster, &unknown, &format!("one {code}"));
        assert!(took < Duration::from_secs(3), "one {code} costs {took:?}");
        cluster.api.stall_watches(false);
        attached(&cluster, &pod, "a known pod");
    }
}

#[test]
fn refusals_that_last_end_at_the_deadline_with_a_sentence() {
    needs_programs!();
    let mut cluster = asking("lasts");
    cluster.world.runtime.plugin["requestTimeout"] = "2s".into();
    attached(&cluster, &cluster.pod("first"), "the first pod, which starts the watch");
    cluster.api.stall_watches(true);
    for (number, (code, advice)) in
        [(429, ""), (500, ""), (401, "renew the token"), (403, "allow it in the ClusterRole"), (410, "")]
            .into_iter()
            .enumerate()
    {
        let pod = cluster.pod(&format!("cam{number}"));
        cluster.api.fail("GET", &path_of(&pod), 1000, code);
        let add = cluster.world.add(&pod);
        let text = add.expect_error(11);
        for part in [format!("default/{}", pod.name), code.to_string(), advice.to_owned()] {
            assert!(text.contains(&part), "{code}: no \"{part}\" in: {text}");
        }
        assert!(add.done.took < Duration::from_secs(5), "{code}: answered after {:?}", add.done.took);
        assert_eq!(pod.netns.link_names(), [""; 0], "{code}: a refused ADD left something");
        cluster.api.heal();
        attached(&cluster, &pod, &format!("after {code}"));
    }
}

#[test]
fn no_refusal_touches_a_pod_whose_annotations_came_along() {
    needs_programs!();
    let cluster = Cluster::new("untouched");
    for code in [401, 403, 409, 410, 429, 500] {
        cluster.api.fail("", "", 10_000, code);
        let pod = cluster.pod(&format!("cam{code}"));
        let took = attached(&cluster, &pod, &format!("all refused with {code}"));
        assert!(took < Duration::from_secs(2), "all refused with {code}: {took:?}");
        cluster.api.heal();
    }
}

#[test]
fn two_seconds_an_answer_delay_a_pod_by_one_answer() {
    needs_programs!();
    let cluster = asking("slow");
    let known = cluster.pod("known");
    attached(&cluster, &known, "before");
    cluster.api.set_latency(Duration::from_secs(2));
    let took = attached(&cluster, &known, "a pod the watch knows");
    assert!(took < Duration::from_secs(1), "a known pod waited {took:?}");
    cluster.api.stall_watches(true);
    let took = attached(&cluster, &cluster.pod("unknown"), "a pod the watch does not know");
    assert!((2..4).contains(&took.as_secs()), "an unknown pod waited {took:?}");
    cluster.api.set_latency(Duration::ZERO);
}

#[test]
fn a_node_that_starts_without_its_api_server_says_so_and_recovers() {
    needs_programs!();
    let mut cluster = Cluster::new("absent");
    // Nothing is known from before: neither in memory nor on disk.
    cluster.api.set_down(true);
    cluster.world.agent.kill9();
    std::fs::remove_dir_all(cluster.world.lab.cni_dir.join("networks")).expect("forget the networks");
    cluster.world.agent.start_again_unready(&cluster.world.lab);
    let plain = cluster.world.lab.pod("plain");
    cluster.world.add(&plain).expect_ok();
    cluster.world.del(&plain).expect_ok();
    let pod = cluster.pod("cam");
    let add = cluster.world.add(&pod);
    let text = add.expect_error(11);
    assert!(text.contains("default/lan") || text.contains("(lan) in namespace (default)"), "which network: {text}");
    assert!(text.contains("refused") && text.contains("multus-agent status"), "why, and what to do: {text}");
    assert!(add.done.took < Duration::from_secs(8), "answered after {:?}", add.done.took);
    assert_eq!(line(&cluster)["health"], "warning", "{}", line(&cluster));
    cluster.api.set_down(false);
    let recovered = wait_until(Duration::from_secs(15), || line(&cluster)["health"] == "ok");
    assert!(recovered, "{}", line(&cluster));
    attached(&cluster, &pod, "the API server is back");
}

#[test]
fn a_network_made_just_before_its_pod_is_there() {
    needs_programs!();
    let mut cluster = asking("just");
    for (number, annotated) in [false, true, false, true].into_iter().enumerate() {
        cluster.world.runtime.gives_annotations = annotated;
        let name = format!("new{number}");
        cluster.api.put_network("default", &name, &cluster.world.lab.macvlan("bridge").to_string());
        std::thread::sleep(Duration::from_millis(10));
        let pod = cluster.world.lab.pod(&format!("cam{number}")).networks(name);
        cluster.api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
        attached(&cluster, &pod, "a network 10 ms old");
    }
}

#[test]
fn a_watch_that_was_cut_goes_on_where_it_was() {
    needs_programs!();
    let cluster = Cluster::new("cut");
    let config = cluster.world.lab.macvlan("bridge").to_string();
    let lists = || cluster.api.seen().iter().filter(|s| s.path.ends_with(NADS) && !s.is_watch()).count();
    let before = lists();
    cluster.api.cut_watches();
    cluster.api.put_network("default", "during", &config);
    attached(&cluster, &cluster.world.lab.pod("a").networks("during"), "made while the watch was cut");
    assert_eq!(lists(), before, "a cut watch resumes, it does not list again");
    // This time what was missed is no longer served: 410, and a new list.
    cluster.api.fail("WATCH", NADS, 1, 410);
    cluster.api.cut_watches();
    cluster.api.delete(NETWORKS, "default", "during");
    cluster.api.put_network("default", "after", &config);
    cluster.api.compact();
    let pod = cluster.world.lab.pod("b").networks("after");
    let up = wait_until(Duration::from_secs(5), || {
        let add = cluster.world.add(&pod);
        add.ok() && cluster.world.del(&pod).ok()
    });
    assert!(up, "the watch did not come back after a 410: {}", line(&cluster));
    let gone = cluster.world.lab.pod("c").networks("during");
    let refused = wait_until(Duration::from_secs(5), || !cluster.world.add(&gone).ok());
    assert!(refused, "a network that was deleted during the cut is still used");
}

#[test]
fn a_token_that_was_replaced_is_read_again() {
    needs_programs!();
    let cluster = Cluster::new("token");
    let lab = &cluster.world.lab;
    let config = lab.macvlan("bridge").to_string();
    let kubeconfig = lab.dir.join("kubeconfig");
    for (number, token) in ["second", "third"].into_iter().enumerate() {
        cluster.api.accept_token(token);
        let refused = || line(&cluster)["text"].as_str().is_some_and(|text| text.contains("401"));
        assert!(wait_until(Duration::from_secs(10), refused), "nobody says that {token} is wanted: {}", line(&cluster));
        assert_eq!(line(&cluster)["health"], "warning");
        if number == 0 {
            std::fs::write(lab.dir.join("token"), token).expect("write the token file");
        } else {
            // This one stands in the kubeconfig itself.
            let mut text: Value = serde_json::from_slice(&std::fs::read(&kubeconfig).expect("read")).expect("JSON");
            text["users"][0]["user"] = json!({"token": token});
            std::fs::write(&kubeconfig, text.to_string()).expect("write the kubeconfig");
        }
        let name = format!("after-{token}");
        cluster.api.put_network("default", &name, &config);
        let well = wait_until(Duration::from_secs(20), || line(&cluster)["health"] == "ok");
        assert!(well, "{token} is not used: {}", line(&cluster));
        // Each watch takes it up by itself.
        let known = || cluster.world.agent.cli(lab, &["get", "networks", "-o", "json"]).out().contains(&name);
        assert!(wait_until(Duration::from_secs(20), known), "{name} is not known");
        attached(&cluster, &lab.pod(token).networks(name), "with a new token");
    }
}

#[test]
fn a_pod_that_the_folder_does_not_have_costs_no_wait() {
    needs_programs!();
    let builder = Builder::new("unlisted");
    let mut world = builder.start();
    world.runtime.gives_annotations = false;
    let first = world.lab.pod("first");
    world.add(&first).expect_ok();
    let began = Instant::now();
    let pods: Vec<_> = (0..3).map(|number| world.lab.pod(&format!("p{number}"))).collect();
    let made = began.elapsed();
    let took: Vec<_> = pods.iter().map(|pod| world.add(pod).expect_ok().done.took).collect();
    assert!(took.iter().all(|took| *took < Duration::from_millis(700)), "{took:?} (namespaces: {made:?})");
    // And one that was written just now is there.
    let lan = world.lab.macvlan("bridge");
    world.lab.network("default", "lan", &lan, &json!({}));
    let pod = world.lab.pod("listed").networks("lan");
    world.lab.pod_object(&pod);
    world.add(&pod).expect_ok();
    assert!(pod.netns.link("net1").is_some());
}
