//! Why an image was not pulled or not unpacked.

use std::path::PathBuf;

use super::digest::Digest;

/// Why there is no root filesystem of this image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It is no name of an image.
    #[error("understand the image reference {text:?}: {reason}")]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The registry has no such image, or hides it from whoever may not see it.
    #[error("pull {reference}: {registry} knows no such image; check its name, or give credentials if it is private")]
    Missing {
        /// The image.
        reference: String,
        /// The registry's host.
        registry: String,
    },
    /// The registry wants other credentials, or any.
    #[error("pull {reference}: {registry} refuses {who}; name credentials that may read it")]
    Denied {
        /// The image.
        reference: String,
        /// The registry's host.
        registry: String,
        /// Whom it refused, in words.
        who: String,
    },
    /// The registry was not reached, or answered what it should not.
    #[error("pull {reference}: {reason}")]
    Registry {
        /// The image.
        reference: String,
        /// What happened, and what to do.
        reason: String,
    },
    /// Its manifest or configuration cannot be used.
    #[error("use the image {reference}: {reason}")]
    Unusable {
        /// The image.
        reference: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// What came is not what was named.
    #[error(
        "verify {what} of {reference}: it is {found} and not {expected}; the registry or somebody between changed it"
    )]
    Altered {
        /// The image.
        reference: String,
        /// Which part.
        what: &'static str,
        /// The digest that was named.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// A layer was refused. Nothing of it is kept.
    #[error("unpack layer {layer} of {reference}: {source}")]
    Layer {
        /// The image.
        reference: String,
        /// The layer, by the digest of its archive.
        layer: Digest,
        /// Why.
        source: LayerError,
    },
    /// A Debian could not be made of its packages.
    #[error("make a Debian {suite}: {reason}")]
    Debian {
        /// The suite.
        suite: String,
        /// What happened, and what to do.
        reason: String,
    },
    /// It takes more than it may.
    #[error("pull {reference}: it has more than {limit} {what}")]
    TooMuch {
        /// The image.
        reference: String,
        /// Of what.
        what: &'static str,
        /// How much it may have.
        limit: u64,
    },
    /// A file or folder of the store could not be used.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `create`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// An entry that no honest builder makes.
    #[error("its entry {entry:?} {reason}")]
    Entry {
        /// The entry's path, made printable.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It is no archive, or a part of it is missing.
    #[error("it is broken: {reason}")]
    Broken {
        /// Where.
        reason: String,
    },
    /// It takes more than it may.
    #[error("it has more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much it may have.
        limit: u64,
    },
    /// The disk has no room for it.
    #[error("there is too little room on the disk of {} ({} MB are left); free some", path.display(), free_bytes >> 20)]
    DiskFull {
        /// The store.
        path: PathBuf,
        /// What is left.
        free_bytes: u64,
    },
    /// Nobody waits for it any more.
    #[error("it was cancelled")]
    Cancelled,
    /// The archive is another one than the image names.
    #[error("its archive is {found}")]
    Altered {
        /// The digest that it has.
        found: Digest,
    },
    /// The kernel refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `create`.
        action: &'static str,
        /// On what: an entry, or a folder of the store.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}
