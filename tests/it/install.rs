//! Installing on every kind of host and taking it off again: the right files, and none left.

pub(crate) mod everywhere;
mod killed;
mod layouts;
mod live;
pub(crate) mod tree;
