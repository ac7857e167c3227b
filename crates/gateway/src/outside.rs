//! What the gateway takes from the world around it: names to addresses, and chance.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// Turns host names into addresses. The egress proxy checks every address before it connects.
pub trait Resolve: Send + Sync {
    /// The addresses of a name, best first; an error when the name does not exist.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The gateway's surroundings, given to it as an argument.
#[derive(Clone)]
pub struct Outside {
    /// Resolves the names that sandboxes ask for.
    pub resolver: Arc<dyn Resolve>,
    /// A number from 0 to 1 that spreads retries.
    pub jitter: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// The system's resolver.
struct SystemResolver;

impl Outside {
    /// The system's resolver and the system's randomness.
    #[must_use]
    pub fn system() -> Self {
        Self { resolver: Arc::new(SystemResolver), jitter: Arc::new(system_jitter) }
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

fn system_jitter() -> f64 {
    // Without randomness every retry takes its full wait, which is safe, only less spread.
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}
