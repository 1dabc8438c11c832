//! Integration tests.

mod kube;
