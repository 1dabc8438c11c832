//! Many pods on one parent: each of them hears one copy, however many there are.

use std::thread;

use multus_agent::datapath::{Datapath, Settings};

use crate::bench::{Bench, Family, Peer, Pod, frames};

/// How often each hears a tag; all listen at the same time.
fn heard(peers: &[Peer], family: Family, tag: &str) -> Vec<usize> {
    thread::scope(|scope| {
        let ears: Vec<_> = peers.iter().map(|peer| scope.spawn(move || peer.heard(family, tag))).collect();
        ears.into_iter().map(|ear| ear.join().unwrap()).collect()
    })
}

#[test]
fn seventy_pods_hear_one_copy_each() {
    let mut bench = Bench::new();
    let pods: Vec<_> = (0..70).map(|_| bench.pod("bridge")).collect();
    let settings = Settings { slots: 80, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let attached: Vec<_> = pods.iter().map(|pod| bench.attach(&datapath, pod)).collect();
    assert!(attached.iter().all(|one| one.relayed));
    let (host, lan) = (bench.host_peer(), bench.lan_peer());
    let peers: Vec<_> = pods.iter().map(Pod::peer).collect();
    for family in [Family::V4, Family::V6] {
        host.query(family, "from the host");
        assert_eq!(heard(&peers, family, "from the host"), [1; 70], "{family:?}");
        assert_eq!(lan.heard(family, "from the host"), 1);
        for from in [0, 63, 64, 69] {
            let tag = format!("from pod {from}.");
            peers[from].query(family, &tag);
            let mut once = [1; 70];
            once[from] = 0;
            assert_eq!(heard(&peers, family, &tag), once, "{tag} {family:?}");
            assert_eq!((host.heard(family, &tag), lan.heard(family, &tag)), (1, 1), "{tag} {family:?}");
        }
    }
    let counts = datapath.relay_counters().unwrap();
    assert_eq!((frames(&counts, "host_to_pod", "relayed"), frames(&counts, "host_to_pod", "failed")), (2, 0));
    assert_eq!(counts.iter().map(|count| count.copies).sum::<u64>(), 2 * 70 + 2 * 4);
    assert_eq!(datapath.facts().parents[0].overflow, 0);
    // Some in the middle go: the others still hear one copy.
    for at in [3, 64, 69] {
        bench.on_host(|| datapath.detach(&attached[at])).unwrap();
    }
    host.query(Family::V4, "after some left");
    let mut once = [1; 70];
    for at in [3, 64, 69] {
        once[at] = 0;
    }
    assert_eq!(heard(&peers, Family::V4, "after some left"), once);
}
