//! The edge: sockets in, operations called, answers out. Translates and nothing else.

pub mod conversation;
pub mod metrics_page;
pub mod routes;
pub mod socket;
