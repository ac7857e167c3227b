//! OCI images as the base of sandboxes: pulled from any registry, unpacked once, shared by layer.
//!
//! ```text
//!   reference ─▶ registry ─▶ manifest ─▶ blob ─▶ inflate ─▶ archive ─▶ unpack ─▶ layers/DIGEST/root
//!   (a name)     (HTTP)      (which)     (file)  (gzip…)    (tar)      (tree)     (overlayfs)
//! ```
//!
//! An image is input of whoever pushed it. What comes is compared with the digest that was named before it is looked
//! at; what is unpacked stays in its folder whatever its paths and links say, is bounded in every direction, and only
//! counts when all of it is there. Why the client is our own: `docs/decisions/images-by-hand.md`.

mod archive;
mod budget;
mod challenge;
mod client;
mod collect;
mod config;
mod debian;
mod digest;
mod error;
mod header;
mod inflate;
mod layers;
mod loose;
mod manifest;
mod pull;
mod reference;
mod registry;
mod seam;
mod store;
mod tree;
mod unpack;

pub use budget::ImageLimits;
pub use config::ImageConfig;
pub use digest::Digest;
pub use error::{ImageError, LayerError};
pub(crate) use loose::unpack_loose;
pub use pull::{OnProgress, PullProgress};
pub use reference::ImageReference;
pub use registry::Credentials;
pub use store::{ImageStore, Rootfs};
