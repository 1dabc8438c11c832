//! Which of several nodes on the same uplinks carries from one to another? A lease, this node, or one that is named.
//!
//! What follows from a lease is decided in `relay::reflect::election`. A node's own pods need no election: their questions
//! leave by their own node alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::traffic::Traffic;
use crate::config::{Election, ReflectSettings};
use crate::kube::LeaseName;
use crate::names::ObjectName;
use crate::ops::context::Context;
use crate::relay::reflect::election::{Candidate, LEASE, Lease, Step};

/// How often a lease is looked at, or renewed.
const PAUSE: Duration = Duration::from_secs(2);

/// Leads, or does not, until `stop`.
pub(super) async fn follow(context: Arc<Context>, traffic: Arc<Traffic>, mut stop: watch::Receiver<bool>) {
    let settings = &context.settings.datapath.reflect;
    if settings.between.is_empty() {
        return;
    }
    let me = context.cluster.node_name();
    let leads = match &settings.election {
        Election::None => true,
        Election::Node(name) => me.as_deref() == Some(name.as_str()),
        Election::Auto if !context.cluster.has_leases() => true,
        Election::Auto | Election::Lease(_) => false,
    };
    traffic.lead(leads);
    if !matches!(settings.election, Election::Auto | Election::Lease(_)) || leads {
        return;
    }
    let namespace = context.settings.delegation.multus_namespace.clone().unwrap_or_else(ObjectName::kube_system);
    let Some((me, lease)) = me.zip(lease_of(settings, &namespace)) else {
        return tracing::warn!("nothing is carried from uplink to uplink: a lease needs nodeName, and an API server");
    };
    let mut campaign =
        Campaign { context: &context, lease, candidate: Candidate::new(me.clone()), me, led: false, said: None };
    loop {
        campaign.look(&traffic).await;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(PAUSE) => {},
        }
    }
    traffic.lead(false);
    campaign.give_back(&traffic).await;
}

/// The one that is named, else one named after the uplinks: nodes that call them alike share a turn.
fn lease_of(settings: &ReflectSettings, namespace: &ObjectName) -> Option<LeaseName> {
    if let Election::Lease(Some(name)) = &settings.election {
        return Some(LeaseName { namespace: namespace.clone(), name: name.clone() });
    }
    let mut names: Vec<String> = settings.uplinks.iter().map(|name| plain(name.as_str())).collect();
    names.sort();
    names.dedup();
    let mut name = format!("multus-reflect-{}", names.join("-"));
    name.truncate(253);
    let name = ObjectName::new(name.trim_end_matches(['-', '.'])).ok()?;
    Some(LeaseName { namespace: namespace.clone(), name })
}

/// An interface name as an object's name may have it.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' }).collect()
}

struct Campaign<'a> {
    context: &'a Context,
    lease: LeaseName,
    candidate: Candidate,
    me: String,
    led: bool,
    /// The last thing that went wrong, so that it is said once.
    said: Option<String>,
}

impl Campaign<'_> {
    async fn look(&mut self, traffic: &Traffic) {
        let fault = self.try_once(traffic).await.err().map(|error| error.to_string());
        if let Some(why) = fault.as_ref().filter(|why| self.said.as_ref() != Some(why)) {
            tracing::warn!("the lease of the reflection: {why}");
        }
        self.said = fault;
        let leads = self.candidate.leads(traffic.now());
        if leads != self.led {
            let word = if leads { "begins" } else { "ends" };
            tracing::info!(lease = %self.lease.name, "this node's turn to carry from uplink to uplink {word}");
        }
        self.led = leads;
        traffic.lead(leads);
    }

    async fn try_once(&mut self, traffic: &Traffic) -> Result<(), crate::kube::ClusterError> {
        let cluster = &self.context.cluster;
        let read = cluster.lease(&self.lease).await?;
        let version = read.as_ref().map(|lease| lease.version.clone());
        let lease = read.map(|lease| Lease { holder: lease.holder, version: lease.version });
        let began = traffic.now();
        if self.candidate.step(began, lease.as_ref()) == Step::Wait {
            return Ok(());
        }
        if cluster.write_lease(&self.lease, &self.me, LEASE, version).await? {
            self.candidate.written(began);
        } else {
            self.candidate.lost();
        }
        Ok(())
    }

    /// So that another node need not wait until the lease is over.
    async fn give_back(&mut self, traffic: &Traffic) {
        if !self.candidate.leads(traffic.now()) {
            return;
        }
        let cluster = &self.context.cluster;
        let Ok(Some(lease)) = cluster.lease(&self.lease).await else { return };
        if lease.holder == self.me
            && let Err(error) = cluster.write_lease(&self.lease, "", LEASE, Some(lease.version)).await
        {
            tracing::debug!("give the lease of the reflection back: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::IfName;

    #[test]
    fn a_lease_is_named_after_the_uplinks_in_any_order() {
        let name = |uplinks: &[&str]| {
            let uplinks = uplinks.iter().map(|name| IfName::new(*name).unwrap()).collect();
            let settings = ReflectSettings { uplinks, ..ReflectSettings::default() };
            lease_of(&settings, &ObjectName::kube_system()).unwrap().name.to_string()
        };
        assert_eq!(name(&["eth1.50", "Eth_0"]), "multus-reflect-eth-0-eth1.50");
        assert_eq!(name(&["b", "a", "b"]), "multus-reflect-a-b");
        let election = Election::Lease(Some(ObjectName::new("house").unwrap()));
        let settings = ReflectSettings { election, ..ReflectSettings::default() };
        assert_eq!(lease_of(&settings, &ObjectName::kube_system()).unwrap().name.to_string(), "house");
    }
}
