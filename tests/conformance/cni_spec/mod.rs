//! The CNI specification 1.1.0, demand by demand, for a plugin that a runtime calls.
//!
//! Each file is one chapter. Demands on runtimes hold here too where the plugin is the runtime of its delegates.

mod add;
mod check;
mod del;
mod errors;
mod gc;
mod results;
mod status;
mod version;

use crate::clause::Clause;

/// All of them.
pub(crate) fn clauses() -> Vec<Clause> {
    [
        version::CLAUSES,
        errors::CLAUSES,
        add::CLAUSES,
        results::CLAUSES,
        del::CLAUSES,
        check::CLAUSES,
        status::CLAUSES,
        gc::CLAUSES,
    ]
    .concat()
}
