//! x

use crate::clause::Clause;

pub(crate) fn clauses() -> Vec<Clause> { Vec::new() }
