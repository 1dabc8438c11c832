//! Is what was attached still there, where it was and in front? And how is it put back?
//!
//! Others share our hooks: a tool deletes the qdisc, an operator detaches a link, a pod with rights of its own removes a
//! filter, interfaces change and go. Here is one look and one repair for each; who is looked at when, and how often
//! something is put back, is decided elsewhere.

use std::io;
use std::sync::PoisonError;

use super::members::Sharers;
use super::object::{GUARD, PARENT, POD};
use super::{
    AttachMode, Attached, Attachment, Datapath, DatapathError, Guarded, Mac, Method, Mode, Parent, hooks, program_ids,
};
use crate::sys::links::{self, Facts};
use crate::sys::netns::NetnsError;

/// How the programs of one interface are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Programs that are not there any more.
    pub missing: Vec<&'static str>,
    /// Programs that another one comes before, and which that is.
    pub behind: Vec<(&'static str, String)>,
    /// Programs that the interface did not take when it was last tried, and why.
    pub refused: Vec<(&'static str, String)>,
}

impl Presence {
    /// Whether everything is there and in front.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.behind.is_empty() && self.refused.is_empty()
    }

    /// Without what is said about the storm guard, which nothing that is relayed needs.
    #[must_use]
    pub fn of_relay(mut self) -> Self {
        self.missing.retain(|name| *name != GUARD);
        self.refused.retain(|(name, _)| *name != GUARD);
        self
    }
}

impl std::fmt::Display for Presence {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gone = self.missing.iter().map(|name| format!("{name} was removed"));
        let behind = self.behind.iter().map(|(name, other)| format!("{name} comes after {other}"));
        let refused = self.refused.iter().map(|(_, reason)| reason.clone());
        out.write_str(&gone.chain(behind).chain(refused).collect::<Vec<_>>().join(", "))
    }
}

/// What a look at a pod's interface found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodLook {
    /// Its namespace is gone.
    NoNamespace,
    /// There is no interface of that name in it.
    NoInterface,
    /// It is there.
    There {
        /// What it is like now.
        facts: Facts,
        /// How its programs are.
        presence: Presence,
        /// Whether its number is its own, and its parent's maps know it with the MAC it was attached with.
        is_member: bool,
    },
}

impl Datapath {
    /// The parents that have programs, as they were when last told.
    pub fn parents(&self) -> Vec<Parent> {
        let parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        let with_programs = |(ifindex, _): &(&u32, &Sharers)| parents.methods.contains_key(ifindex);
        state.sharers.iter().filter(with_programs).map(|(_, sharers)| sharers.parent.clone()).collect()
    }

    /// Looks at a parent's programs. One that nobody is on any more is whole.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn look_at_parent(&self, ifindex: u32) -> Result<Presence, DatapathError> {
        let parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(method), Some(parent)) = (parents.methods.get(&ifindex), self.known_parent(ifindex)) else {
            return Ok(Presence::default());
        };
        let mut presence = match method {
            Method::Tcx => {
                hooks::links(&parent, &program_ids(&parents.object)).map_err(|error| unseen(&parent.name, error))?
            }
            Method::Clsact => hooks::filters(&parent.name, PARENT).map_err(|error| unseen(&parent.name, error))?,
        };
        match parents.guards.get(&ifindex) {
            Some((_, Some(guard))) => {
                let there = links::xdp_programs_here(ifindex).map_err(|error| unseen(&parent.name, error))?;
                if !there.contains(&guard.id) {
                    presence.missing.push(GUARD);
                }
            }
            Some((Guarded::Failed(fault), None)) => presence.refused.push((GUARD, fault.clone())),
            // It is part of `parent_ingress`, or there is to be none.
            _ => {}
        }
        Ok(presence)
    }

    /// Puts a parent's programs back where `found` says that they are not, or not in front.
    ///
    /// # Errors
    /// They cannot be attached; what was there still is. A storm guard that is refused is not an error: the next look says
    /// so.
    pub fn restore_parent(&self, ifindex: u32, found: &Presence) -> Result<(), DatapathError> {
        let mut parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(method), Some(parent)) = (parents.methods.get(&ifindex).copied(), self.known_parent(ifindex)) else {
            return Ok(());
        };
        if !found.clone().of_relay().is_whole() {
            // Before anything is taken off that could not be put back: links must be pinned, filters need not.
            match self.need_pins() {
                Err(error) if self.settings.attach == AttachMode::Tcx => return Err(error),
                _ => {}
            }
            // A filter of somebody else may be in the place of one that is missing.
            let usurped = found.missing.iter().filter(|_| method == Method::Clsact);
            for program in found.behind.iter().map(|(program, _other)| program).chain(usurped) {
                hooks::lift(&parent, program, method, &self.links);
            }
            let method = hooks::attach_parent(&mut parents.object, &parent, self.settings.attach, &self.links)?;
            parents.methods.insert(ifindex, method);
        }
        self.guard(&mut parents, &parent);
        Ok(())
    }

    /// Looks at a pod's interface and its programs, in one visit of its namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered although it is there, or the kernel does not say.
    pub fn look_at_pod(&self, attached: &Attached) -> Result<PodLook, DatapathError> {
        let Attachment { ifname, mac, parent, .. } = &attached.attachment;
        let seen = attached.attachment.inside(|| {
            let Some(facts) = links::find_here(ifname)? else { return Ok(None) };
            Ok::<_, io::Error>(Some((facts, hooks::filters(ifname, POD)?)))
        });
        match seen {
            Err(NetnsError::Gone(_) | NetnsError::NotNetns(_)) => Ok(PodLook::NoNamespace),
            Err(error) => Err(error.into()),
            Ok(Err(error)) => Err(unseen(ifname, error)),
            Ok(Ok(None)) => Ok(PodLook::NoInterface),
            Ok(Ok(Some((facts, presence)))) => {
                let state = self.state();
                let parent = parent.as_ref().filter(|_| self.settings.mode == Mode::Full);
                let has_its_number = state.instances.is_its(attached.instance, &(&attached.attachment).into());
                let is_known = parent.is_none_or(|parent| {
                    let sharers = state.sharers.get(&parent.ifindex);
                    sharers.is_some_and(|sharers| sharers.mac_of(attached.instance) == Some(*mac))
                });
                let is_member = has_its_number && is_known;
                Ok(PodLook::There { facts, presence, is_member })
            }
        }
    }

    /// Why an attachment is not relayed although it should be, where that is for want of room in a map.
    pub fn refusal(&self, attached: &Attached) -> Option<String> {
        self.state().refused.get(&attached.instance).cloned()
    }

    /// Takes an attachment whose interface is gone off its parent. Its number, and what it has counted, stay its own
    /// until it is detached.
    ///
    /// # Errors
    /// A map refuses.
    pub fn set_aside(&self, attached: &Attached) -> Result<(), DatapathError> {
        let Some(parent) = &attached.attachment.parent else { return Ok(()) };
        let knows =
            self.state().sharers.get(&parent.ifindex).is_some_and(|all| all.mac_of(attached.instance).is_some());
        if knows { self.leave(parent, attached.instance) } else { Ok(()) }
    }

    /// Makes the datapath agree with an attachment that is `now` otherwise than it was attached: another MAC, another
    /// parent, programs that are not where they were.
    ///
    /// # Errors
    /// As [`Datapath::attach`]; and another member of the parent has the MAC.
    pub fn refresh(&self, was: &Attached, now: &Attachment, found: &Presence) -> Result<Attached, DatapathError> {
        let has_its_number = {
            let mut state = self.state();
            // Nobody's, where its container was busy when the datapath was opened; or somebody took it since.
            let _taken = state.instances.claim(was.instance, (&was.attachment).into());
            state.instances.is_its(was.instance, &(&was.attachment).into())
        };
        if !has_its_number {
            return self.attach(now);
        }
        let described = Attached { slot: was.slot, ..self.describe(now, was.instance) };
        let parent = described.attachment.parent.as_ref();
        if let Some(parent) = parent {
            self.refuse_taken_mac(parent, was.instance, now.mac)?;
        }
        if was.attachment.parent.as_ref().is_some_and(|old| parent.is_none_or(|new| new.ifindex != old.ifindex)) {
            self.set_aside(was)?;
        }
        self.state().instances.rename(was.instance, now.into());
        if !found.is_whole() {
            // Before anything is taken off that could not be put back.
            self.need_pins()?;
            now.inside(|| hooks::lift_pod(&now.ifname))?;
        }
        let joined = self.join_if_there_is_room(&described)?;
        if !found.is_whole() {
            self.attach_pod(&described)?;
        }
        if let Some(parent) = parent.filter(|_| joined) {
            self.attach_parent(parent)?;
        }
        let relayed = self.is_relayed(&described);
        Ok(Attached { relayed, ..described })
    }

    fn refuse_taken_mac(&self, parent: &Parent, instance: u32, mac: Mac) -> Result<(), DatapathError> {
        let state = self.state();
        let holder = state.sharers.get(&parent.ifindex).and_then(|sharers| sharers.holder_of(mac));
        match holder {
            Some(other) if other != instance => Err(DatapathError::SameMac { mac, parent: parent.name.clone() }),
            _ => Ok(()),
        }
    }

    fn known_parent(&self, ifindex: u32) -> Option<Parent> {
        self.state().sharers.get(&ifindex).map(|sharers| sharers.parent.clone())
    }
}

pub(super) fn unseen(interface: &str, error: impl std::fmt::Display) -> DatapathError {
    DatapathError::Unseen { interface: interface.to_owned(), reason: error.to_string() }
}
