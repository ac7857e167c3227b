//! The doors of Hob: command line, configuration, HTTP, WebSocket, sign-in, start-up and shutdown.
//!
//! # Architecture invariant
//!
//! No business rule of sessions lives here: a handler parses, calls `hob-session`, maps the answer. Nothing depends on
//! this crate but its own binary and tests.

pub mod api;
pub mod auth;
pub mod cli;
pub mod config;
pub mod git;
pub mod install;
pub mod metrics;
pub mod problem;
pub mod render;
pub mod serve;
pub mod wiring;
pub mod ws;
