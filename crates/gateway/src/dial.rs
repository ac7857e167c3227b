//! Connects to where a sandbox wants to go, after every check: the allow-list, then each resolved address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::access::Door;
use crate::address::{Reach, reach};
use crate::gateway::Shared;
use crate::host::{Host, Verdict, parse_port, split_port};
use crate::meter::RefusalReason;

/// The longest answer of an upstream proxy to `CONNECT`, in bytes.
const PROXY_HEAD_BYTES_MAX: usize = 8 << 10;

/// Where a proxy request wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("{0}")]
    Refused(RefusalReason),
    #[error("the name does not resolve: {0}")]
    NoName(io::Error),
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    #[error("no connection in time")]
    TooSlow,
}

impl Target {
    /// Reads `host:port`, or `host` where there is a default port. Credentials are refused, not ignored.
    pub(crate) fn parse(authority: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = split_port(authority);
        let port = match port {
            Some(port) => parse_port(port)?,
            None => default_port?,
        };
        Some(Self { host: host.parse().ok()?, port })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Connects, if the access may go there.
pub(crate) async fn dial(shared: &Shared, door: &Door, target: &Target) -> Result<TcpStream, DialError> {
    let private = match door.judge(&target.host, target.port) {
        Verdict::HostUnknown => return Err(DialError::Refused(RefusalReason::HostNotAllowed)),
        Verdict::PortUnknown => return Err(DialError::Refused(RefusalReason::PortNotAllowed)),
        Verdict::Public => false,
        Verdict::Private => true,
    };
    let patience = shared.config.limits.connect();
    if let Some(proxy) = &shared.proxy {
        // Behind such a proxy names often do not resolve here. It is asked for the name, and an address is checked.
        if let Host::Address(address) = target.host {
            permitted(&[address], private)?;
        }
        return timeout(patience, through(proxy, target)).await.map_err(|_| DialError::TooSlow)?;
    }
    let addresses = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => timeout(patience, shared.outside.resolver.resolve(name))
            .await
            .map_err(|_| DialError::TooSlow)?
            .map_err(DialError::NoName)?,
    };
    connect(&permitted(&addresses, private)?, target.port, patience).await
}

/// The addresses that may be connected to, or why there is none.
fn permitted(addresses: &[IpAddr], private: bool) -> Result<Vec<IpAddr>, DialError> {
    let open = |address: &IpAddr| match reach(*address) {
        Reach::Public => true,
        Reach::Private => private,
        Reach::Never => false,
    };
    let permitted: Vec<IpAddr> = addresses.iter().copied().filter(open).collect();
    match (permitted.is_empty(), addresses.first()) {
        (false, _) => Ok(permitted),
        (true, None) => Err(DialError::NoName(io::Error::new(io::ErrorKind::NotFound, "it has no address"))),
        (true, Some(first)) => Err(DialError::Refused(match reach(*first) {
            Reach::Never => RefusalReason::ForbiddenAddress(*first),
            Reach::Private | Reach::Public => RefusalReason::PrivateAddress(*first),
        })),
    }
}

/// Tries one address after the other; each gets a share of the time, so that a dead one does not use it up.
async fn connect(addresses: &[IpAddr], port: u16, patience: Duration) -> Result<TcpStream, DialError> {
    let share = patience / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = DialError::TooSlow;
    for address in addresses {
        match timeout(share, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(DialError::Unreachable)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = DialError::Unreachable(error),
            Err(_) => last = DialError::TooSlow,
        }
    }
    Err(last)
}

/// Asks the machine's own proxy for a connection.
async fn through(proxy: &Url, target: &Target) -> Result<TcpStream, DialError> {
    let place = (proxy.host_str().unwrap_or_default(), proxy.port_or_known_default().unwrap_or(80));
    let mut stream = TcpStream::connect(place).await.map_err(DialError::Unreachable)?;
    stream.set_nodelay(true).map_err(DialError::Unreachable)?;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(DialError::Unreachable)?;
    let mut head = Vec::new();
    // Byte by byte: what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > PROXY_HEAD_BYTES_MAX {
            return Err(DialError::Unreachable(io::Error::other("the machine's proxy answers without end")));
        }
        head.push(stream.read_u8().await.map_err(DialError::Unreachable)?);
    }
    let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if status.len() == 3 && status.starts_with(b"2") {
        return Ok(stream);
    }
    let status = String::from_utf8_lossy(status.get(..3).unwrap_or_default()).into_owned();
    Err(DialError::Unreachable(io::Error::other(format!("the machine's proxy answered {status}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_strictly() {
        let parsed = |text| Target::parse(text, None).map(|target| target.to_string());
        assert_eq!(parsed("Example.COM:443").as_deref(), Some("example.com:443"));
        assert_eq!(parsed("[::1]:80").as_deref(), Some("[::1]:80"));
        for odd in
            ["example.com", "user@example.com:443", "example.com:0", "example.com:+80", "example.com:65536", ":80"]
        {
            assert_eq!(parsed(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_name_with_mixed_addresses_leads_only_to_the_open_ones() {
        let addresses = ["127.0.0.1".parse().unwrap(), "203.0.113.9".parse().unwrap()];
        assert_eq!(permitted(&addresses, false).unwrap(), [addresses[1]]);
        assert_eq!(permitted(&addresses, true).unwrap(), addresses);
        let refused = permitted(&["169.254.169.254".parse().unwrap()], true).unwrap_err();
        assert!(matches!(refused, DialError::Refused(RefusalReason::ForbiddenAddress(_))));
    }
}
