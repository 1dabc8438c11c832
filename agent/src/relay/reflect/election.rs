//! Is it this node's turn to carry from uplink to uplink? What follows from a lease as it was read.
//!
//! Pure, and trusts no other node's clock: a lease is over when it did not change for its whole duration here.

use std::time::Duration;

/// How long a lease lasts that is not renewed.
pub const LEASE: Duration = Duration::from_secs(15);
/// How long its holder believes in it: it stops well before anybody else may begin.
const BELIEF: Duration = Duration::from_secs(10);

/// A lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who has it; empty: nobody.
    pub holder: String,
    /// Its version: another one after every change.
    pub version: String,
}

/// What is to be done about the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is none: make it.
    Create,
    /// It is ours, or nobody's any more: write it anew.
    Write,
    /// It is somebody else's.
    Wait,
}

/// One who would hold the lease.
#[derive(Debug)]
pub struct Candidate {
    me: String,
    leads_until: Duration,
    seen: Option<(String, Duration)>,
}

impl Candidate {
    /// A candidate of this name.
    pub fn new(me: String) -> Self {
        Self { me, leads_until: Duration::ZERO, seen: None }
    }

    /// What follows from the lease as it was read at `now`.
    pub fn step(&mut self, now: Duration, lease: Option<&Lease>) -> Step {
        let Some(lease) = lease else { return Step::Create };
        if lease.holder == self.me || lease.holder.is_empty() {
            return Step::Write;
        }
        self.leads_until = Duration::ZERO;
        match &self.seen {
            Some((version, since)) if *version == lease.version => {
                if now >= *since + LEASE {
                    Step::Write
                } else {
                    Step::Wait
                }
            }
            _ => {
                self.seen = Some((lease.version.clone(), now));
                Step::Wait
            }
        }
    }

    /// The lease was written with our name; the writing began at `began`.
    pub fn written(&mut self, began: Duration) {
        self.leads_until = began + BELIEF;
        self.seen = None;
    }

    /// Somebody else was faster, or it is not wanted any more.
    pub fn lost(&mut self) {
        self.leads_until = Duration::ZERO;
    }

    /// Is it our turn?
    pub fn leads(&self, now: Duration) -> bool {
        now < self.leads_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease(holder: &str, version: &str) -> Lease {
        Lease { holder: holder.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn a_lease_is_made_kept_and_given_up_in_time() {
        let mut me = Candidate::new("a".to_owned());
        assert_eq!(me.step(at(0), None), Step::Create);
        me.written(at(0));
        assert!(me.leads(at(9)));
        assert_eq!(me.step(at(5), Some(&lease("a", "1"))), Step::Write);
        me.written(at(5));
        assert!(me.leads(at(14)) && !me.leads(at(15)), "without an answer it ends before the lease does");
        me.lost();
        assert!(!me.leads(at(6)));
    }

    #[test]
    fn somebody_elses_lease_is_respected_while_it_changes() {
        let mut me = Candidate::new("b".to_owned());
        for second in 0..60 {
            let version = (second / 10).to_string();
            assert_eq!(me.step(at(second), Some(&lease("a", &version))), Step::Wait, "{second}");
        }
        assert_eq!(me.step(at(64), Some(&lease("a", "5"))), Step::Wait);
        assert_eq!(me.step(at(65), Some(&lease("a", "5"))), Step::Write, "unchanged for as long as it lasts");
        assert_eq!(me.step(at(0), Some(&lease("", "9"))), Step::Write, "given back");
    }

    #[test]
    fn two_never_lead_at_once() {
        let (mut a, mut b) = (Candidate::new("a".to_owned()), Candidate::new("b".to_owned()));
        a.written(at(0));
        // The server is away for `a` from now on; `b` sees its last writing late.
        let last = lease("a", "1");
        let takes = (1..60).find(|second| b.step(at(*second), Some(&last)) == Step::Write).unwrap();
        assert!(!a.leads(at(takes)));
    }
}
