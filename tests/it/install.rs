//! Installing on every kind of host and taking it off again: the right files, and none left.

mod everywhere;
mod killed;
mod layouts;
mod live;
pub(crate) mod tree;
