//! Sessions as people see them, with a real store, real git, real sandboxes and the built-in agent.

#![expect(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "a test that cannot go on says so")]

mod house;
mod life;
mod turns;
