//! What do discovery protocols say, and what follows from it for the relay? Messages read and written, tables kept.
//!
//! Pure: bytes and clocks are arguments. Nothing here sends, receives or remembers beyond what it is told to.

pub mod discovery;
pub mod dns;
pub mod head;
pub mod probe;
pub mod reflect;
pub mod why;
