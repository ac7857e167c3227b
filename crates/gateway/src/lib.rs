//! The one way out of a sandbox: a model proxy and an egress proxy, with credentials added outside.

mod address;
mod config;
mod host;
mod key;

pub use config::{
    ConfigError, EgressConfig, GatewayConfig, Limits, ModelConfig, Prices, ProviderConfig, ProviderKind, RetryConfig,
    WireFormat, default_egress,
};
pub use host::{HostRule, HostRuleError};
pub use key::{KeyError, KeyRef};
