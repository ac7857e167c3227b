//! The one way out of a sandbox: a model proxy and an egress proxy, with credentials added outside.
//!
//! A [`Gateway`] opens an [`Access`] for each session. Inside its sandbox the access is a unix socket that answers
//! as an HTTP proxy (the allow-list decides) and as a model API (the session's token decides); the built-in agent,
//! which runs in the server, reaches the same model API on a loopback port. What passes is measured and told to a
//! [`Meter`].
//!
//! It knows no rule of sessions: who may do what is in the [`AccessSpec`] that the caller hands over. It is the only
//! place where a credential meets traffic: a provider's key is read when a call needs it, is added to the request
//! that leaves, and is scrubbed from whatever comes back.

mod access;
mod address;
mod answer;
mod config;
mod dial;
mod door;
mod egress;
mod gateway;
mod headers;
mod hello;
mod host;
mod key;
mod limit;
mod meter;
mod model;
mod outside;
mod registry;
mod told;
mod tunnel;

pub use access::{Access, AccessSpec, OpenError, UnknownModel};
pub use config::{
    ConfigError, EgressConfig, GatewayConfig, Limits, ModelConfig, Prices, ProviderConfig, ProviderKind, RetryConfig,
    WireFormat, default_egress,
};
pub use gateway::{Gateway, StartError};
pub use host::{HostRule, HostRuleError};
pub use key::{KeyError, KeyRef};
pub use meter::{CallEnd, Meter, ModelCall, Notice, NoticeKind, RefusalReason, RefusedEgress, Totals};
pub use outside::{Outside, Resolve};
