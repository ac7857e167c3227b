//! Sessions as people see them, with a real store, real git, real sandboxes and the built-in agent.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test that cannot go on says so"
)]

mod crowd;
mod environment;
mod gate;
mod house;
mod images;
mod kill;
mod life;
mod orphans;
mod pools;
mod services;
mod snapshots;
mod turns;
