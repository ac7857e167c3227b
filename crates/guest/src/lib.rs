//! What the guest, the sandbox helper and the server say to each other.
//!
//! The program of this crate is process 1 of every sandbox, and in other modes the helper that starts sandboxes. This
//! library is what both ends of its sockets share: frames and message types, no behaviour.
//!
//! # Architecture invariant
//!
//! No policy, no secrets, no network of its own.

pub mod frame;
pub mod launch;
pub mod protocol;
