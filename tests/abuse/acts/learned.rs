//! What rules keep: terms, buckets, half sequences.

use std::io;
use std::process::Stdio;

use super::{FAT_BYTES, Order, in_waves};

/// Distinct command lines.
pub(super) fn terms(order: &Order) -> io::Result<()> {
    let program = order.beside("term")?;
    in_waves((0..order.count).map(|number| {
        let mut command = order.run(&program, "none", 1);
        command.env_remove(super::ORDER).arg("--list").arg(format!("{number}{}", "x".repeat(FAT_BYTES)));
        command.stderr(Stdio::null());
        Ok(command)
    }))
}

/// A shell that runs what could connect, and does not.
pub(super) fn half_sequences(order: &Order) -> io::Result<()> {
    in_waves((0..order.count).map(|_| {
        let mut command = order.again("none", 1);
        command.env_remove(super::ORDER).arg("--list").arg("x".repeat(FAT_BYTES)).stderr(Stdio::null());
        Ok(command)
    }))
}
