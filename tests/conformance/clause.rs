//! What a clause is: a name, a sentence, and a function that panics when the sentence does not hold.

use std::panic::panic_any;

/// One demand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clause {
    /// `family.group.what`; the filter of the command line looks in it.
    pub(crate) id: &'static str,
    /// The demand, as one sentence.
    pub(crate) says: &'static str,
    /// Tries it on a node of its own.
    pub(crate) run: fn(),
}

/// A clause, as the tables in the families write it.
pub(crate) const fn clause(id: &'static str, says: &'static str, run: fn()) -> Clause {
    Clause { id, says, run }
}

/// Why a clause was not judged.
#[derive(Debug, Clone)]
pub(crate) struct Skipped(pub(crate) String);

/// Leaves the clause unjudged, visibly.
pub(crate) fn skip(reason: &str) -> ! {
    panic_any(Skipped(reason.to_owned()))
}
