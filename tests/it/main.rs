//! Integration tests: the two programs on real namespaces, links, plugins and kernels.

#![allow(clippy::tests_outside_test_module, reason = "this whole crate is tests")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "this whole crate is tests")]

mod kube;
mod lab_itself;
