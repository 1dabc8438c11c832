//! What many pods cost: nothing fails, nothing is left, memory and descriptors come back to where they were.
//!
//! Short in the normal run. With `MULTUS_LONG` set: 500 pods, 50 at a time, and 2 000 in a row; run it with `--nocapture`
//! for the figures.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::world::Builder;
use lab::{Answer, NodeState, Pod, World};
use serde_json::json;

fn is_long() -> bool {
    std::env::var_os("MULTUS_LONG").is_some()
}

fn world(name: &str) -> World {
    let builder = Builder::alone(name);
    let lan = json!({
        "cniVersion": "1.0.0", "type": "macvlan", "master": "eth0", "mode": "bridge",
        "ipam": {"type": "host-local", "dataDir": builder.lab.ipam_dir, "ranges": [[{"subnet": "10.60.0.0/16"}]]}
    });
    let builder = builder.network("lan", &lan).configure(|config, lab| {
        config["logFile"] = json!(lab.dir.join("multus.log"));
        config["logLevel"] = "debug".into();
        config["logToStderr"] = false.into();
        config["logOptions"] = json!({"maxSize": 1, "maxBackups": 2});
        // Whoever waits for a place waits as long as it takes.
        config["requestTimeout"] = "120s".into();
    });
    let mut world = builder.start();
    world.runtime.plugin["requestTimeout"] = "120s".into();
    world.runtime.limit = Duration::from_secs(150);
    world
}

/// What may stay allocated after a burst, in KiB: pages of the heap that hold something which has to stay.
const SLACK: u64 = 768;
/// What the last thousand traces take at most, in KiB; the short run leaves a tenth of them.
const TRACES: u64 = 1024;
/// The agent looks every ten seconds whether it is at rest, and gives memory back then.
const REST: Duration = Duration::from_secs(12);

/// What is allocated when it has not become less for a while, in KiB.
fn at_rest(world: &World) -> u64 {
    let (mut lowest, mut since) = (u64::MAX, Instant::now());
    while since.elapsed() < REST {
        let now = world.agent.allocated_kib();
        if now < lowest {
            (lowest, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    lowest
}

/// What is allocated once it is no more than `wanted`; after a while, what it is then.
fn rested(world: &World, wanted: u64) -> u64 {
    lab::wait_until(3 * REST, || world.agent.allocated_kib() <= wanted);
    world.agent.allocated_kib()
}

/// CPU time of one scrape.
fn scrape(world: &World) -> Duration {
    const SCRAPES: u32 = 10;
    let before = world.agent.cpu_time();
    for _ in 0..SCRAPES {
        world.agent.metrics(&world.lab);
    }
    world.agent.cpu_time().saturating_sub(before) / SCRAPES
}

/// Does `work` for each pod, `at_once` at a time; every answer must be a success.
fn all(pods: &[Pod], at_once: usize, work: impl Fn(&Pod) -> Answer + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(pod).expect_ok();
                }
            });
        }
    });
}

#[test]
fn a_burst_of_pods_fails_none_leaks_none_and_gives_its_memory_back() {
    needs_programs!();
    let (count, at_once, rounds, slack) = if is_long() { (500, 50, 3, SLACK + TRACES) } else { (60, 20, 1, SLACK) };
    let world = world("burst");
    let baseline = world.baseline();
    let pods: Vec<_> = (0..count).map(|n| world.lab.pod(&format!("p{n}")).networks("lan")).collect();
    // The baseline: an agent that knows every manifest and has attached a pod, at rest.
    world.add(&pods[0]).expect_ok();
    world.del(&pods[0]).expect_ok();
    let (start, allocated) = (world.agent.memory_kib().0, at_rest(&world));
    let mut after = Vec::new();
    for round in 1..=rounds {
        world.agent.reset_memory_peak();
        let began = Instant::now();
        all(&pods, at_once, |pod| world.add(pod));
        let (added, adds) = (world.agent.memory_kib(), began.elapsed());
        for pod in &pods {
            assert_eq!(pod.netns.addresses("net1").len(), 1, "{} has no address on net1", pod.name);
        }
        let scrape = scrape(&world);
        all(&pods, at_once, |pod| world.del(pod));
        let took = began.elapsed();
        let now = rested(&world, allocated + slack);
        eprintln!(
            "burst {round}: {count} pods, {at_once} at a time: ADDs {adds:?}, all {took:?}; RSS {start} KiB at the start, \
             {} with all pods, {} at the peak, {} after; allocated {allocated} at the start, {now} after; \
             (descriptors, threads) {:?}",
            added.0,
            added.1,
            world.agent.memory_kib().0,
            world.agent.descriptors_and_threads()
        );
        eprintln!("a scrape with all pods: {scrape:?} of CPU");
        after.push(now);
    }
    baseline.assert_restored(&world.lab, &[], "a burst of pods");
    let worst = after.iter().max().copied().unwrap_or_default();
    assert!(worst <= allocated + slack, "memory does not come back: {allocated} KiB before, {after:?} KiB after");
}

#[test]
fn pods_one_after_the_other_leave_descriptors_and_memory_flat() {
    needs_programs!();
    let cycles = if is_long() { 2000 } else { 100 };
    let world = world("cycles");
    let baseline = world.baseline();
    let pod = world.lab.pod("cam").networks("lan");
    let cycle = || {
        world.add(&pod).expect_ok();
        world.del(&pod).expect_ok();
    };
    let warm = (cycles / 10).max(20);
    (0..warm).for_each(|_| cycle());
    let before = (world.agent.allocated_kib(), world.agent.descriptors_and_threads());
    let began = Instant::now();
    (0..cycles - warm).for_each(|_| cycle());
    let after = (world.agent.allocated_kib(), world.agent.descriptors_and_threads());
    eprintln!(
        "{cycles} pods in a row: {:?}; allocated KiB, (descriptors, threads): {before:?} -> {after:?}",
        began.elapsed()
    );
    assert!(after.1.0 <= before.1.0 + 4, "descriptors grow: {before:?} -> {after:?}");
    // Threads for blocking work come and go.
    assert!(after.1.1 <= before.1.1 + 8, "threads grow: {before:?} -> {after:?}");
    assert!(after.0 <= before.0 + 2 * 1024, "memory grows: {before:?} -> {after:?}");
    let left = baseline.difference(&NodeState::capture(&world.lab, &[]));
    assert_eq!(left, [""; 0]);
    let logs = lab::state::files(&world.lab.dir).into_iter().filter(|f| f.to_string_lossy().contains("multus")).count();
    assert!(logs <= 5, "{logs} files of log");
}
