//! The built-in agent against a model server of its own, with real files and real processes.

#![expect(clippy::expect_used, reason = "what the tests stand on may fail them")]

mod context;
mod recorded;
mod support;
mod tools;
mod trouble;
mod turns;
