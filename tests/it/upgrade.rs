//! A rolling update of a node, forth and back, as a DaemonSet does it: drain, end, the other release's installer, its agent.
//!
//! The release before is the one in `MULTUS_NEIGHBOUR_BIN_DIR`. Without it this build plays both, with another plugin
//! file, another eBPF object and records as a later release may write them.

mod stream;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::metrics::Samples;
use lab::world::Builder;
use lab::{
    Agent, Audience, Ear, Family, Lab, Pod, Protocol, Voice, World, agent, http, plugins, process, traffic, wait_for,
    wait_until,
};
use serde_json::{Value, json};

use stream::Stream;

/// Where the programs of the release before are.
const NEIGHBOUR: &str = "MULTUS_NEIGHBOUR_BIN_DIR";
/// What passes from the end of one release's pod to the start of the next one's.
const KUBELET: Duration = Duration::from_millis(700);
/// Packets a second, each way, between the host and a pod that stays.
const RATE: u32 = 200;

/// The two programs of a release.
struct Release {
    agent: PathBuf,
    shim: PathBuf,
}

impl Release {
    /// What is tested.
    fn this() -> Self {
        Self { agent: agent::program("multus-agent"), shim: agent::program("multus-shim") }
    }

    /// The one before, if it is here.
    fn before() -> Option<Self> {
        let folder = PathBuf::from(std::env::var_os(NEIGHBOUR)?);
        Some(Self { agent: folder.join("multus-agent"), shim: folder.join("multus-shim") })
    }

    /// This build, with a plugin file of other bytes.
    fn alike(lab: &Lab) -> Self {
        let this = Self::this();
        let shim = lab.dir.join("multus-shim-before");
        let bytes = [&fs::read(&this.shim).expect("read the plugin")[..], b"of the release before"].concat();
        fs::write(&shim, bytes).expect("write a plugin");
        Self { shim, ..this }
    }

    /// What the init container does.
    fn install(&self, lab: &Lab, config: &Path) -> process::Finished {
        let mut command = lab.node.command(&self.agent);
        command.arg("install").arg("--config").arg(config).arg("--shim").arg(&self.shim);
        process::run(&mut command, b"", Duration::from_secs(30))
    }

    /// The same, which has to succeed.
    fn installed(&self, lab: &Lab, config: &Path) {
        let done = self.install(lab, config);
        assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
        assert_eq!(fs::read(plugin(lab)).unwrap(), fs::read(&self.shim).unwrap(), "the plugin is this release's");
    }
}

/// The plugin on the host.
fn plugin(lab: &Lab) -> PathBuf {
    lab.bin_dir.join("multus-shim")
}

/// A node on which `release` was installed and runs. Its runtime calls the plugin on the host.
fn node(release: &Release, builder: Builder) -> World {
    let file = builder.lab.dir.join("install.json");
    fs::write(&file, builder.config.to_string()).expect("write the configuration");
    release.installed(&builder.lab, &file);
    let mut world = builder.start();
    world.runtime.program = plugin(&world.lab);
    if release.agent != Release::this().agent {
        world.agent.run_next(release.agent.clone());
        world.agent.term();
        world.agent.start_again(&world.lab);
    }
    world
}

/// The pod of one release goes, the pod of another comes; `between` them no agent is there. Says from when to when.
fn roll(agent: &mut Agent, lab: &Lab, to: &Release, between: impl FnOnce(&Agent)) -> (Instant, Instant) {
    let began = Instant::now();
    let drained = agent.cli(lab, &["drain"]);
    assert_eq!(drained.code, Some(0), "{}\n{}", drained.out(), drained.err());
    agent.term();
    between(agent);
    to.installed(lab, agent.config_file());
    // A kubelet takes its time, too: so long that every ADD of the stream waits for the next agent.
    std::thread::sleep(KUBELET);
    agent.run_next(to.agent.clone());
    agent.start_again(lab);
    (began, Instant::now())
}

/// Every series of a pod's interfaces.
fn counts(lab: &Lab, pod: &Pod) -> BTreeMap<String, f64> {
    // An agent is ready before somebody listens there.
    let page = || http::get_tcp(&lab.node, agent::METRICS, "/metrics").ok();
    let page = wait_for(Duration::from_secs(10), page).expect("GET /metrics");
    let samples = Samples::parse(&page.body).all;
    let of_pod = samples
        .into_iter()
        .filter(|s| s.name.starts_with("multus_interface_") && s.labels.get("pod") == Some(&pod.name));
    of_pod.map(|sample| (format!("{} {:?}", sample.name, sample.labels), sample.value)).collect()
}

fn assert_none_steps_back(before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>, when: &str) {
    assert!(!before.is_empty() && before.values().any(|count| *count > 0.0), "{when}: nothing was counted");
    for (series, count) in before {
        let is = now.get(series).unwrap_or_else(|| panic!("{when}: {series} is gone"));
        assert!(is >= count, "{when}: {series} was {count} and is {is}");
    }
}

/// The record of a pod.
fn record(lab: &Lab, pod: &Pod) -> PathBuf {
    lab.cni_dir.join(format!("records/{}.record", pod.id))
}

/// A record's first line, and what follows.
fn parsed(path: &Path) -> (String, Value) {
    let text = fs::read_to_string(path).expect("read a record");
    let (head, body) = text.split_once('\n').expect("two lines");
    (head.to_owned(), serde_json::from_str(body).expect("JSON"))
}

/// The only folder of pins.
fn layout(lab: &Lab) -> PathBuf {
    let mut folders = fs::read_dir(&lab.bpffs).expect("pins").map(|entry| entry.expect("a folder").path());
    let (only, others) = (folders.next(), folders.next());
    only.filter(|_| others.is_none()).expect("one folder of pins")
}

/// Writes every record as a later release may: with its number, and with fields that nobody knows yet.
fn write_later(lab: &Lab) {
    let mut records = lab::state::files(&lab.cni_dir.join("records"));
    records.retain(|path| path.extension().is_some_and(|ending| ending == "record"));
    records.into_iter().for_each(write_one_later);
}

fn write_one_later(path: PathBuf) {
    let (head, mut body) = parsed(&path);
    assert!(head.starts_with("multus-ebpf record 1 "), "{head}");
    for place in ["", "/attachments/1", "/attachments/1/delegates/0", "/attachments/1/link"] {
        body.pointer_mut(place).expect("a place")["later"] = json!({"in": place});
    }
    let body = body.to_string();
    // FNV-1a, as docs/reference/files.md says.
    let sum = body
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    fs::write(path, format!("multus-ebpf record 2 {sum:016x}\n{body}")).expect("write a record");
}

#[test]
fn pods_come_and_go_through_an_update_and_back_and_notice_nothing() {
    needs_programs!();
    let builder = Builder::on(Lab::alone("roll"));
    let lan = builder.lab.macvlan("bridge");
    let (now, before) = (Release::this(), Release::before());
    let is_alike = before.is_none();
    if is_alike {
        eprintln!("upgrade: {NEIGHBOUR} is not set: this build plays the release before, too");
    }
    let before = before.unwrap_or_else(|| Release::alike(&builder.lab));
    let mut world = node(&before, builder.network("lan", &lan));
    let baseline = world.baseline();
    let old = world.attached("old", "lan");
    let (heard, host_heard) =
        (Ear::new(&old.netns, "net1", Protocol::Mdns), Ear::new(&world.lab.node, "eth0", Protocol::Mdns));
    let voices = [Voice::new(&world.lab.node, "eth0", Protocol::Mdns), Voice::new(&old.netns, "net1", Protocol::Mdns)];
    for (voice, ear) in voices.iter().zip([&heard, &host_heard]) {
        assert!(wait_until(Duration::from_secs(5), || ear.hears(&voice.say(Family::V4), Duration::from_millis(200))));
    }
    std::thread::sleep(Duration::from_millis(300));
    let first = (heard.datagrams(), host_heard.datagrams());

    let stream = Stream::default();
    let quiet = std::sync::atomic::AtomicBool::new(false);
    let World { agent, runtime, lab } = &mut world;
    let (lab, runtime) = (&*lab, &*runtime);
    let sent = std::thread::scope(|scope| {
        let _finishes = Finishes(&stream, &quiet);
        for _ in 0..stream::ADDERS {
            scope.spawn(|| stream.add(lab, runtime));
        }
        scope.spawn(|| stream.del(lab, runtime));
        let talks = voices.each_ref().map(|voice| {
            let quiet = &quiet;
            scope.spawn(move || {
                let mut sent = 0;
                while !quiet.load(std::sync::atomic::Ordering::Relaxed) {
                    sent += traffic::blast(voice, Protocol::Mdns, Family::V4, RATE, Duration::from_millis(200));
                }
                sent
            })
        });
        stream.wait();
        let counted = counts(lab, &old);
        let forth = roll(agent, lab, &now, |agent| {
            // The next release has another eBPF object.
            agent.reconfigure(|config| config["datapath"]["log"] = true.into());
        });
        let updated = counts(lab, &old);
        assert_none_steps_back(&counted, &updated, "after the update");
        stream.wait();
        let back = roll(agent, lab, &before, |agent| {
            agent.reconfigure(|config| config["datapath"]["log"] = false.into());
            if is_alike {
                stream.undisturbed(|| write_later(lab));
                // Another layout of maps, too.
                fs::rename(layout(lab), lab.bpffs.join("v9999")).expect("rename the layout");
            }
        });
        assert_none_steps_back(&updated, &counts(lab, &old), "after the way back");
        stream.wait();
        for (which, (from, to)) in [("update", forth), ("way back", back)] {
            let (adds, dels) = stream.during(from, to);
            eprintln!("upgrade: {which}: {:?}, {adds} ADDs and {dels} DELs meanwhile", to - from);
            assert!(adds > 0 && dels > 0, "{which}: {adds} ADDs and {dels} DELs meanwhile");
        }
        quiet.store(true, std::sync::atomic::Ordering::Relaxed);
        talks.map(|talk| talk.join().expect("talk"))
    });
    let (adds, dels) = stream.assert_clean();
    eprintln!("upgrade: {adds} ADDs and {dels} DELs in all, {sent:?} packets");

    // The pod that stayed has lost nothing and heard nothing twice.
    let since = |ear: &Ear, first: u64| ear.datagrams() - first;
    let all = || since(&heard, first.0) >= sent[0] && since(&host_heard, first.1) >= sent[1];
    wait_until(Duration::from_secs(3), all);
    let doubled = (heard.duplicates(), host_heard.duplicates());
    assert_eq!((since(&heard, first.0), since(&host_heard, first.1), doubled), (sent[0], sent[1], (0, 0)));
    // Those that came have what they came for: each is counted, and hears the host once.
    let pods = stream.pods();
    assert!(pods.len() >= 2, "{} pods are left", pods.len());
    let audience = pods.iter().fold(Audience::new(Protocol::Mdns), |all, pod| all.with(&pod.name, &pod.netns, "net1"));
    let once: Vec<_> = pods.iter().map(|pod| (pod.name.as_str(), 1)).collect();
    audience.expect_each("host to pods after the way back", &voices[0], &once);
    for pod in &pods {
        assert!(counts(lab, pod).values().any(|count| *count > 0.0), "{} is not counted", pod.name);
        runtime.check(lab, pod).expect_ok();
    }
    if is_alike {
        let (_, body) = parsed(&record(lab, &old));
        assert_eq!(body["attachments"][1]["link"]["later"]["in"], "/attachments/1/link", "what is not known stays");
    }
    drop((audience, heard, host_heard));
    for pod in pods.iter().chain([&old]) {
        runtime.del(lab, pod).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0]);
    }
    baseline.assert_restored(lab, &[], "an update, the way back and DEL");
    assert!(torn(lab).is_empty(), "records were set aside: {:?}", torn(lab));
}

/// Ends what runs beside a test, also when that fails.
struct Finishes<'a>(&'a Stream, &'a std::sync::atomic::AtomicBool);

impl Drop for Finishes<'_> {
    fn drop(&mut self) {
        self.0.finish();
        self.1.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Records that were set aside, and notes.
fn torn(lab: &Lab) -> Vec<PathBuf> {
    let mut files = lab::state::files(&lab.cni_dir);
    files.retain(|file| file.extension().is_some_and(|ending| ending == "torn" || ending == "bad"));
    files
}

#[test]
fn an_agent_that_cannot_start_holds_pods_up_until_the_one_before_is_back() {
    needs_programs!();
    let builder = Builder::new("crash");
    let lan = builder.lab.macvlan("bridge");
    let before = Release::alike(&builder.lab);
    let mut world = node(&before, builder.network("lan", &lan));
    let baseline = world.baseline();
    let (stays, goes) = (world.attached("stays", "lan"), world.attached("goes", "lan"));
    let World { agent, runtime, lab } = &mut world;
    assert_eq!(agent.cli(lab, &["drain"]).code, Some(0));
    agent.term();
    // The new release is there; the configuration that was rolled out with it is not one.
    Release::this().installed(lab, agent.config_file());
    agent.reconfigure(|config| config["requestTimeout"] = "soon".into());
    let add = {
        let pod = lab.pod("waits").networks("lan");
        let running = runtime.call("ADD", Some(&pod)).start(&lab.node);
        (pod, running)
    };
    let (pod, mut running) = add;
    for _ in 0..2 {
        agent.start_again_unready(lab);
        assert!(wait_until(Duration::from_secs(10), || !agent.is_running()), "it must not run with this configuration");
    }
    let refused = Release::alike(lab).install(lab, agent.config_file());
    assert!(!refused.success(), "the installer reads the same configuration: {}", refused.out());
    assert_eq!(fs::read(plugin(lab)).unwrap(), fs::read(&Release::this().shim).unwrap(), "and touches nothing");
    // Meanwhile pods go, and what runs runs.
    runtime.del(lab, &goes).expect_ok();
    assert_eq!(goes.netns.link_names(), [""; 0]);
    let voice = Voice::new(&lab.node, "eth0", Protocol::Mdns);
    let ear = Ear::new(&stays.netns, "net1", Protocol::Mdns);
    let relayed = wait_until(Duration::from_secs(3), || ear.hears(&voice.say(Family::V4), Duration::from_millis(100)));
    assert!(relayed && ear.duplicates() == 0, "a pod that stays hears the host");
    assert!(running.is_running() && pod.netns.link("net1").is_none());
    agent.reconfigure(|config| config["requestTimeout"] = "20s".into());
    before.installed(lab, agent.config_file());
    agent.run_next(before.agent);
    agent.start_again(lab);
    let done = running.wait(Duration::from_secs(20));
    assert!(done.success(), "exit {:?}\n{}\n{}", done.code, done.out(), done.err());
    assert_eq!(pod.netns.addresses("net1").len(), 2);
    drop(ear);
    for pod in [&stays, &pod] {
        runtime.del(lab, pod).expect_ok();
    }
    baseline.assert_restored(lab, &[], "a failed update and the way back");
}

#[test]
fn a_plugin_that_hangs_and_a_plugin_that_is_replaced_under_a_call_cost_no_pod() {
    needs_programs!();
    let builder = Builder::new("hang");
    let healed = builder.lab.dir.join("healed");
    let slow = plugins::conf(&builder.lab, "slow", &json!({"ADD": {"wait_for": healed}}));
    let lan = builder.lab.macvlan("bridge");
    let before = Release::alike(&builder.lab);
    let mut world = node(&before, builder.network("lan", &lan).network("slow", &slow));
    let baseline = world.baseline();
    let World { agent, runtime, lab } = &mut world;
    let (pod, next) = (lab.pod("cam").networks("lan,slow"), lab.pod("next").networks("lan"));
    let add = runtime.call("ADD", Some(&pod)).start(&lab.node);
    assert!(wait_until(Duration::from_secs(10), || !plugins::journal(lab, "slow").is_empty()), "it never hung");
    let drained = agent.cli(lab, &["drain", "--timeout", "300ms"]);
    assert!(drained.code == Some(4) && drained.err().contains("1 attachment;"), "{:?} {}", drained.code, drained.err());
    let waiting = runtime.call("ADD", Some(&next)).start(&lab.node);
    // What the kubelet does when the time that it grants is over.
    agent.kill9();
    let running = fs::metadata(format!("/proc/{}/exe", add.pid())).expect("the plugin runs");
    Release::this().installed(lab, agent.config_file());
    let same = fs::metadata(format!("/proc/{}/exe", add.pid())).expect("the plugin runs on");
    assert_eq!(inode(&running), inode(&same), "who has begun goes on with the file that was there");
    assert_ne!(inode(&running), inode(&fs::metadata(plugin(lab)).unwrap()));
    agent.start_again(lab);
    let done = waiting.wait(Duration::from_secs(20));
    assert!(done.success() && next.netns.link("net1").is_some(), "{:?}\n{}\n{}", done.code, done.out(), done.err());
    assert!(pod.netns.link("eth0").is_some(), "the one that hangs is not touched");
    fs::write(healed, "").expect("heal the plugin");
    let done = add.wait(Duration::from_secs(20));
    assert!(done.success(), "exit {:?}\n{}\n{}", done.code, done.out(), done.err());
    assert_eq!(pod.netns.addresses("net1").len(), 2);
    for pod in [&pod, &next] {
        runtime.check(lab, pod);
        runtime.del(lab, pod).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0]);
    }
    baseline.assert_restored(lab, &[], "a hanging plugin, an update and DEL");
}

fn inode(about: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(about)
}
