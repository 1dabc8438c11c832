//! What is left of an ADD that is killed after any of its steps: nothing, after one reconcile or one further request.
//!
//! Fake plugins stand between the real ones as gates: each holds the ADD up where it is until its door is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::process::Running;
use lab::world::Builder;
use lab::{Home, Lab, NodeState, Pod, World, plugins, wait_until};
use multus_agent::names::ContainerId;
use multus_agent::records::{Records, State};
use serde_json::{Value, json};

/// Places in an ADD of three networks: before and after each of its three real plugins.
const GATES: usize = 6;
const MASTER: (&str, &str) = ("lab-default", "cbr0");

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Agent,
    Shim,
    Both,
}

struct Sweep {
    world: World,
    pod: Pod,
    before: NodeState,
    home: Home,
    kills: usize,
}

fn door(lab: &Lab, gate: usize) -> PathBuf {
    lab.dir.join(format!("door{gate}"))
}

fn gate(lab: &Lab, number: usize) -> Value {
    plugins::conf(lab, &format!("gate{number}"), &json!({"ADD": {"wait_for": door(lab, number)}}))
}

fn bridge(lab: &Lab, name: &str, subnet: &str) -> Value {
    json!({
        "type": "bridge", "bridge": name,
        "ipam": {"type": "host-local", "dataDir": lab.ipam_dir, "ranges": [[{"subnet": subnet}]]}
    })
}

/// `plugin` between two gates.
fn gated(lab: &Lab, name: &str, first: usize, mut plugin: Value) -> Value {
    plugin.as_object_mut().expect("an object").remove("cniVersion");
    let mut list =
        json!({"cniVersion": "1.0.0", "name": name, "plugins": [gate(lab, first), plugin, gate(lab, first + 1)]});
    for gate in list["plugins"].as_array_mut().expect("a list") {
        gate.as_object_mut().expect("an object").remove("cniVersion");
    }
    list
}

impl Sweep {
    fn new(name: &str, home: Home) -> Self {
        let builder = Builder::new(name);
        let lab = &builder.lab;
        let (default, lan) = (gated(lab, MASTER.0, 0, bridge(lab, MASTER.1, "10.77.0.0/16")), lab.macvlan("bridge"));
        let (lan, second) = (gated(lab, "lan", 2, lan), gated(lab, "second", 4, bridge(lab, "br2", "10.78.0.0/16")));
        let builder = builder.network("lan", &lan).network("second", &second);
        fs::write(builder.lab.conf_dir.join("10-default.conflist"), default.to_string()).expect("the default network");
        let mut world = if home == Home::Host { builder.on_host() } else { builder }.start();
        "1.1.0".clone_into(&mut world.runtime.version);
        (0..GATES).for_each(|gate| fs::write(door(&world.lab, gate), "").expect("open a door"));
        let pod = world.lab.pod("cam").networks("lan,second");
        // What stays for good, the bridges and the pinned maps, is there after the first ADD and DEL.
        world.add(&pod).expect_ok();
        world.del(&pod).expect_ok();
        let before = NodeState::capture(&world.lab, &[&pod]);
        assert_eq!(pod.netns.link_names(), [""; 0]);
        Self { world, pod, before, home, kills: 0 }
    }

    fn start(&self) -> Running {
        self.world.runtime.call("ADD", Some(&self.pod)).start(&self.world.lab.node)
    }

    fn arrivals(&self, gate: usize) -> usize {
        let journal = plugins::journal(&self.world.lab, &format!("gate{gate}"));
        plugins::verbs(&journal).iter().filter(|verb| **verb == "ADD").count()
    }

    /// Kills while the ADD stands before gate `gate`.
    fn kill_at(&mut self, gate: usize, victim: Victim) {
        let shut = door(&self.world.lab, gate);
        fs::remove_file(&shut).expect("shut a door");
        let earlier = self.arrivals(gate);
        let add = self.start();
        let there = wait_until(Duration::from_secs(10), || self.arrivals(gate) > earlier);
        assert!(there, "the ADD never came to gate {gate}");
        self.kill(add, victim, &shut, &format!("{victim:?} killed at gate {gate}, agent in {:?}", self.home));
    }

    fn kill(&mut self, mut add: Running, victim: Victim, shut: &Path, what: &str) {
        self.kills += 1;
        let heard = self.answered();
        if victim != Victim::Shim {
            self.world.agent.kill9();
        }
        if victim != Victim::Agent {
            add.kill();
        }
        if victim != Victim::Shim {
            self.world.agent.start_again(&self.world.lab);
        }
        fs::write(shut, "").expect("open a door");
        let done = add.wait(Duration::from_secs(20));
        if victim == Victim::Agent {
            // The shim lives on: it has the new agent do it again.
            assert!(done.success(), "{what}: exit {:?}\n{}\n{}", done.code, done.out(), done.err());
        } else {
            let over = || victim == Victim::Both || self.answered() > heard;
            assert!(wait_until(Duration::from_secs(5), over), "{what}: the agent does not notice");
            self.one_chance();
            self.before.assert_restored(&self.world.lab, &[&self.pod], what);
            self.world.add(&self.pod).expect_ok();
        }
        self.assert_whole(what);
        self.world.del(&self.pod).expect_ok();
        assert_eq!(self.pod.netns.link_names(), [""; 0], "{what}, another ADD, and its DEL");
        assert_eq!(plugins::allocations(&self.world.lab.ipam_dir), [""; 0], "{what}, another ADD, and its DEL");
    }

    /// ADDs that this agent is done with.
    fn answered(&self) -> u64 {
        self.world.agent.metrics(&self.world.lab).sum("multus_cni_requests_total", &[("verb", "ADD")])
    }

    /// In its pod the agent may not run plugins by itself: the next request, whatever it is, brings somebody who may.
    fn one_chance(&self) {
        if self.home == Home::Pod {
            self.world.runtime.status(&self.world.lab).expect_ok();
        }
    }

    fn assert_whole(&self, what: &str) {
        let mut links = self.pod.netns.link_names();
        links.sort();
        assert_eq!(links, ["eth0", "net1", "net2"], "{what}");
        assert_eq!(plugins::allocations(&self.world.lab.ipam_dir).len(), 4, "{what}: addresses of eth0, net1 and net2");
    }

    /// Kills when the record says that all is done: the runtime hears nothing, and calls DEL.
    fn kill_at_the_end(&mut self, victim: Victim) {
        let id = ContainerId::new(&self.pod.id).expect("a container id");
        let records = Records::at(&self.world.lab.cni_dir);
        let mut add = self.start();
        let done = || matches!(records.load(&id), Ok(Some(record)) if record.state == State::Added);
        assert!(wait_until(Duration::from_secs(10), done), "the ADD was never done");
        self.kills += 1;
        if victim != Victim::Shim {
            self.world.agent.kill9();
        }
        if victim == Victim::Agent {
            self.world.agent.start_again(&self.world.lab);
        } else {
            add.kill();
        }
        let done = add.wait(Duration::from_secs(20));
        assert!(victim != Victim::Agent || done.success(), "{}\n{}", done.out(), done.err());
        if victim == Victim::Both {
            self.world.agent.start_again(&self.world.lab);
        }
        self.world.del(&self.pod).expect_ok();
        let what = format!("{victim:?} killed when all was done, agent in {:?}, and DEL", self.home);
        self.before.assert_restored(&self.world.lab, &[&self.pod], &what);
    }

    /// Kills after the `step`th change of the record; false: the ADD was done before.
    fn kill_at_record(&mut self, step: usize, victim: Victim) -> bool {
        use std::os::unix::fs::MetadataExt;
        let record = self.world.lab.cni_dir.join("records").join(format!("{}.record", self.pod.id));
        let (mut seen, mut last) = (0, 0);
        let mut add = self.start();
        while seen < step && add.is_running() {
            let inode = fs::metadata(&record).map_or(0, |facts| facts.ino());
            seen += usize::from(inode != 0 && inode != last);
            last = inode;
        }
        if seen < step {
            drop(add.wait(Duration::from_secs(10)));
            self.world.del(&self.pod).expect_ok();
            return false;
        }
        let id = ContainerId::new(&self.pod.id).expect("a container id");
        let shut = self.world.lab.dir.join("door0");
        self.world.agent.kill9();
        add.kill();
        drop(add.wait(Duration::from_secs(5)));
        let is_done = matches!(Records::at(&self.world.lab.cni_dir).load(&id), Ok(Some(r)) if r.state == State::Added);
        self.kills += 1;
        self.world.agent.start_again(&self.world.lab);
        if is_done {
            self.world.del(&self.pod).expect_ok();
        } else {
            self.one_chance();
        }
        let what = format!("{victim:?} killed at change {step} of the record, agent in {:?}", self.home);
        self.before.assert_restored(&self.world.lab, &[&self.pod], &what);
        fs::write(shut, "").expect("open a door");
        true
    }

    fn whole(mut self, victims: &[Victim]) {
        for gate in 0..GATES {
            for victim in victims {
                self.kill_at(gate, *victim);
            }
        }
        for victim in victims {
            self.kill_at_the_end(*victim);
        }
        if std::env::var_os("MULTUS_LONG").is_some() {
            let mut step = 1;
            while self.kill_at_record(step, Victim::Both) {
                step += 1;
            }
        }
        eprintln!("sweep with the agent in {:?}: {} kills", self.home, self.kills);
    }
}

#[test]
fn a_killed_add_leaves_nothing_where_the_agent_is_on_the_host() {
    needs_programs!();
    Sweep::new("sweep-host", Home::Host).whole(&[Victim::Agent, Victim::Shim, Victim::Both]);
}

#[test]
fn a_killed_add_leaves_nothing_where_the_agent_is_in_its_pod() {
    needs_programs!();
    Sweep::new("sweep-pod", Home::Pod).whole(&[Victim::Agent, Victim::Shim, Victim::Both]);
}

#[test]
fn a_killed_shim_whose_agent_is_away_leaves_nothing() {
    needs_programs!();
    let mut sweep = Sweep::new("sweep-away", Home::Pod);
    sweep.world.agent.kill9();
    let mut add = sweep.start();
    std::thread::sleep(Duration::from_millis(200));
    add.kill();
    drop(add.wait(Duration::from_secs(5)));
    sweep.world.agent.start_again(&sweep.world.lab);
    sweep.before.assert_restored(&sweep.world.lab, &[&sweep.pod], "a shim that was killed while it waited");
    sweep.world.add(&sweep.pod).expect_ok();
    sweep.assert_whole("after that");
    sweep.world.del(&sweep.pod).expect_ok();
}
