//! The wire.
#![no_std]
