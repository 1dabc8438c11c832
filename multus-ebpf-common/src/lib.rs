#![no_std]
//! Types shared with the kernel.
