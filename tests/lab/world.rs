//! A whole node in one value: lab, networks, agent and runtime, as most tests want it.
//!
//! It adds no behaviour of its own.

use serde_json::{Value, json};

use crate::{Agent, Answer, Home, Lab, NodeState, Pod, Runtime, agent};

/// A lab with a running agent and a runtime.
#[derive(Debug)]
pub struct World {
    // The agent goes first, then the namespaces it lives in.
    /// The agent.
    pub agent: Agent,
    /// The runtime with our shim.
    pub runtime: Runtime,
    /// The node.
    pub lab: Lab,
}

/// Networks and settings of a world before its agent starts.
#[derive(Debug)]
pub struct Builder {
    /// The node.
    pub lab: Lab,
    /// The agent's configuration.
    pub config: Value,
    /// The runtime.
    pub runtime: Runtime,
    /// Where the agent lives.
    pub home: Home,
}

impl Builder {
    /// A node without networks.
    pub fn new(name: &str) -> Self {
        Self::on(Lab::new(name))
    }

    /// The same with no other lab beside it.
    pub fn alone(name: &str) -> Self {
        Self::on(Lab::alone(name))
    }

    /// A node without networks on this lab.
    pub fn on(lab: Lab) -> Self {
        Self { config: agent::config(&lab), runtime: Runtime::new(&lab), lab, home: Home::Pod }
    }

    /// One more network in namespace `default`.
    #[must_use]
    pub fn network(self, name: &str, config: &Value) -> Self {
        self.lab.network("default", name, config, &json!({}));
        self
    }

    /// A change of the agent's configuration.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Value, &Lab)) -> Self {
        change(&mut self.config, &self.lab);
        self
    }

    /// The agent on the host, where it may run plugins by itself.
    #[must_use]
    pub fn on_host(mut self) -> Self {
        self.home = Home::Host;
        self
    }

    /// The agent in its pod, with the right to run plugins on the host.
    #[must_use]
    pub fn with_host_exec(mut self) -> Self {
        self.home = Home::HostExec;
        self
    }

    /// The agent in its pod, without one of the capabilities of the manifests, or of the host-exec component after that.
    #[must_use]
    pub fn without_capability(mut self, name: &'static str) -> Self {
        self.home = if self.home == Home::HostExec { Home::HostExecWithout(name) } else { Home::PodWithout(name) };
        self
    }

    /// Starts the agent.
    pub fn start(self) -> World {
        let agent = Agent::start_at(self.home, &self.lab, &self.config);
        World { agent, runtime: self.runtime, lab: self.lab }
    }
}

impl World {
    /// A node whose macvlan networks `lan` (bridge mode) and `quiet` (private mode) are known, agent running.
    pub fn new(name: &str) -> Self {
        Self::on(Lab::new(name))
    }

    /// The same with no other lab beside it.
    pub fn alone(name: &str) -> Self {
        Self::on(Lab::alone(name))
    }

    fn on(lab: Lab) -> Self {
        let builder = Builder::on(lab);
        let (bridge, private) = (builder.lab.macvlan("bridge"), builder.lab.macvlan("private"));
        builder.network("lan", &bridge).network("quiet", &private).start()
    }

    /// ADD.
    pub fn add(&self, pod: &Pod) -> Answer {
        self.runtime.add(&self.lab, pod)
    }

    /// DEL.
    pub fn del(&self, pod: &Pod) -> Answer {
        self.runtime.del(&self.lab, pod)
    }

    /// CHECK.
    pub fn check(&self, pod: &Pod) -> Answer {
        self.runtime.check(&self.lab, pod)
    }

    /// A pod called `name` on `networks`, attached.
    pub fn attached(&self, name: &str, networks: &str) -> Pod {
        let pod = self.lab.pod(name).networks(networks);
        self.add(&pod).expect_ok();
        pod
    }

    /// What the node looks like before anything of interest: after one pod came and went, so that what stays for good
    /// (the default bridge, pinned maps) is there.
    pub fn baseline(&self) -> NodeState {
        self.after_one(&self.lab.pod("first").networks("lan"))
    }

    /// The same for a node that has no network `lan`.
    pub fn baseline_without_networks(&self) -> NodeState {
        self.after_one(&self.lab.pod("first"))
    }

    fn after_one(&self, first: &Pod) -> NodeState {
        self.add(first).expect_ok();
        self.del(first).expect_ok();
        NodeState::capture(&self.lab, &[])
    }
}
