//! Do the reference pages say what the code says, and do their links lead somewhere?
//!
//! What a page has between `<!-- generated: NAME -->` and `<!-- /generated: NAME -->` is made from the code. A test fails
//! where it is not; `MULTUS_REGENERATE=1 cargo test -p multus-agent --test reference` writes it anew. What stands around
//! the blocks is written by hand and never touched. One file per page makes its blocks and calls [`block::page`].
#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod block;

mod cli;
mod commands;
mod configuration;
mod errors;
mod links;
mod metrics;
