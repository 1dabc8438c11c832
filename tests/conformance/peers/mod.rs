//! What was measured of Multus under load and faults, each row with the outcome a user would want instead.

mod answers;
mod api;
mod away;
mod running;
mod takeover;

use crate::clause::Clause;

/// All of them.
pub(crate) fn clauses() -> Vec<Clause> {
    [answers::CLAUSES, running::CLAUSES, away::CLAUSES, api::CLAUSES, takeover::CLAUSES].concat()
}
