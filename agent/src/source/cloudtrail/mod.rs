//! CloudTrail: AWS's log of API calls, read from folders and from S3, as ECS events.
#![allow(dead_code, reason = "until assembled")]

mod actions;
mod ecs;
mod entities;
mod frames;
mod geo;
mod records;
mod text;

#[cfg(test)]
mod tests;
