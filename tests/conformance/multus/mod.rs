//! What users of Multus rely on: its own tests in our words, its protocol, and what its defects teach.

mod autoconf;
mod default_route;
mod faults;
mod hotplug;
mod networks;
mod protocol;
mod scenarios;
mod selection;
mod texts;
mod verbs;

use crate::clause::Clause;

/// All of them.
pub(crate) fn clauses() -> Vec<Clause> {
    [
        texts::CLAUSES,
        selection::CLAUSES,
        networks::CLAUSES,
        scenarios::CLAUSES,
        default_route::CLAUSES,
        verbs::CLAUSES,
        protocol::CLAUSES,
        hotplug::CLAUSES,
        autoconf::CLAUSES,
        faults::CLAUSES,
    ]
    .concat()
}
