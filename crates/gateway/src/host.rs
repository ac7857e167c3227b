//! Hosts as a proxy request names them, and the rules that allow them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

/// The ports that a rule allows when it names none.
const DEFAULT_PORTS: [u16; 2] = [443, 80];

/// One line of an allow-list: `crates.io`, `*.example.com`, `registry.internal:8443`, an IP address, or `*`.
///
/// In a configuration it is that text, or a table `{host, ports?, private?}`. Ports are 443 and 80 where none is
/// named. `*.example.com` covers every name below `example.com` but not `example.com` itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RuleText")]
pub struct HostRule {
    pattern: Pattern,
    ports: Vec<u16>,
    private: bool,
}

/// Why a rule could not be understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HostRuleError {
    /// The host part is neither a name, an address, `*.suffix` nor `*`.
    #[error(
        "`{0}` is no host rule; write a host, `*.suffix`, an IP address or `*`, with `:port` where it is not 443 or 80"
    )]
    Host(String),
    /// The port is not a number from 1 to 65535.
    #[error("`{0}` names no port from 1 to 65535")]
    Port(String),
}

/// A host as a request names it: lower case, without brackets and without a final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name to resolve.
    Name(String),
    /// An address in its ordinary form.
    Address(IpAddr),
}

/// What a rule says about a host and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No rule covers the host.
    HostUnknown,
    /// A rule covers the host, on other ports.
    PortUnknown,
    /// Allowed where it resolves to public addresses.
    Public,
    /// Allowed, also where it resolves to addresses of own networks.
    Private,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(Host),
    Below(String),
    Any,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RuleText {
    Text(String),
    Table(RuleTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    host: String,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    private: bool,
}

impl HostRule {
    /// The same rule, allowed to lead to private and loopback addresses: for registries on an intranet.
    ///
    /// Link-local, multicast and metadata addresses stay closed.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    fn covers(&self, host: &Host) -> bool {
        match (&self.pattern, host) {
            (Pattern::Any, Host::Name(_)) => true,
            (Pattern::Exact(exact), host) => exact == host,
            (Pattern::Below(suffix), Host::Name(name)) => {
                name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            // An address is reached only by a rule that names it: `*` means every name.
            (Pattern::Any | Pattern::Below(_), Host::Address(_)) => false,
        }
    }
}

/// What an allow-list says about a host and a port.
pub(crate) fn judge(rules: &[HostRule], host: &Host, port: u16) -> Verdict {
    let mut verdict = Verdict::HostUnknown;
    for rule in rules.iter().filter(|rule| rule.covers(host)) {
        verdict = match (rule.ports.contains(&port), rule.private, verdict) {
            (true, true, _) => return Verdict::Private,
            (true, false, _) => Verdict::Public,
            (false, _, Verdict::HostUnknown) => Verdict::PortUnknown,
            (false, _, earlier) => earlier,
        };
    }
    verdict
}

impl FromStr for HostRule {
    type Err = HostRuleError;

    fn from_str(text: &str) -> Result<Self, HostRuleError> {
        let (host, port) = split_port(text);
        let ports = match port {
            Some(port) => vec![parse_port(port).ok_or_else(|| HostRuleError::Port(text.to_owned()))?],
            None => DEFAULT_PORTS.to_vec(),
        };
        let wrong = || HostRuleError::Host(text.to_owned());
        let pattern = match host.strip_prefix("*.") {
            _ if host == "*" => Pattern::Any,
            Some(suffix) => match suffix.parse().map_err(|()| wrong())? {
                Host::Name(suffix) => Pattern::Below(suffix),
                Host::Address(_) => return Err(wrong()),
            },
            None => Pattern::Exact(host.parse().map_err(|()| wrong())?),
        };
        Ok(Self { pattern, ports, private: false })
    }
}

impl TryFrom<RuleText> for HostRule {
    type Error = HostRuleError;

    fn try_from(text: RuleText) -> Result<Self, HostRuleError> {
        match text {
            RuleText::Text(text) => text.parse(),
            RuleText::Table(table) => {
                let mut rule: Self = table.host.parse()?;
                if table.ports.contains(&0) {
                    return Err(HostRuleError::Port("0".to_owned()));
                }
                if !table.ports.is_empty() {
                    rule.ports = table.ports;
                }
                rule.private = table.private;
                Ok(rule)
            }
        }
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Any => f.write_str("*")?,
            Pattern::Below(suffix) => write!(f, "*.{suffix}")?,
            Pattern::Exact(host) => write!(f, "{host}")?,
        }
        match self.ports.as_slice() {
            ports if ports == DEFAULT_PORTS => Ok(()),
            ports => ports.iter().try_for_each(|port| write!(f, ":{port}")),
        }
    }
}

impl FromStr for Host {
    type Err = ();

    /// Reads a host strictly. Octal, hexadecimal, decimal and shortened spellings of IPv4 addresses are refused,
    /// as is any name that a resolver might take for one (its last label begins with a digit).
    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(v6) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return v6.parse().map(|v6| Self::Address(IpAddr::V6(v6))).map_err(|_| ());
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let numeric = name.rsplit('.').next().is_none_or(|last| last.starts_with(|first: char| first.is_ascii_digit()));
        if name.len() > 253 || numeric || !name.split('.').all(label_ok) {
            return Err(());
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            Self::Address(IpAddr::V4(v4)) => write!(f, "{v4}"),
        }
    }
}

/// Splits `host:port`, `[v6]:port`, `host`, `[v6]` and a bare IPv6 address.
pub(crate) fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// Reads a port strictly: digits only, 1 to 65535.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &[&str], host: &str, port: u16, expect: Verdict) {
        let rules: Vec<HostRule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        assert_eq!(judge(&rules, &host.parse().unwrap(), port), expect, "{host}:{port}");
    }

    #[test]
    fn a_host_is_allowed_by_name_suffix_or_address() {
        check(&["crates.example"], "crates.example", 443, Verdict::Public);
        check(&["crates.example"], "Crates.Example.", 80, Verdict::Public);
        check(&["crates.example"], "crates.example", 22, Verdict::PortUnknown);
        check(&["crates.example"], "evil-crates.example", 443, Verdict::HostUnknown);
        check(&["*.example"], "a.b.example", 443, Verdict::Public);
        check(&["*.example"], "example", 443, Verdict::HostUnknown);
        check(&["*.example"], "notexample", 443, Verdict::HostUnknown);
        check(&["*"], "anything.test", 443, Verdict::Public);
        check(&["*"], "93.184.216.34", 443, Verdict::HostUnknown);
        check(&["93.184.216.34"], "93.184.216.34", 443, Verdict::Public);
        check(&["git.internal:22"], "git.internal", 22, Verdict::Public);
        check(&["[2606:4700::1111]:443"], "[2606:4700::1111]", 443, Verdict::Public);
    }

    #[test]
    fn odd_spellings_of_addresses_are_no_hosts() {
        for host in [
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.1",
            "1.2.3.4.5",
            "127.0.0.1%00.example.1",
            "[::1",
            "::1]",
            "[fe80::1%eth0]",
            "",
            ".",
            "a..b",
            "a b",
            "user@host",
            "host/path",
            "ex\u{e4}mple",
            "-%41",
        ] {
            assert_eq!(host.parse::<Host>(), Err(()), "{host}");
        }
    }

    #[test]
    fn rules_are_text_or_tables() {
        #[derive(Deserialize)]
        struct Config {
            allow: Vec<HostRule>,
        }
        let config: Config =
            toml::from_str("allow = ['*.example.com', { host = 'npm.internal', ports = [4873], private = true }]")
                .unwrap();
        assert_eq!(judge(&config.allow, &"npm.internal".parse().unwrap(), 4873), Verdict::Private);
        assert_eq!(config.allow[0].to_string(), "*.example.com");
        assert_eq!(config.allow[1].to_string(), "npm.internal:4873");
        assert!(toml::from_str::<Config>("allow = [{ host = 'a.test', prt = [1] }]").is_err());
        assert!(toml::from_str::<Config>("allow = ['*.1.2.3.4']").is_err());
        assert_eq!("a.test:0".parse::<HostRule>(), Err(HostRuleError::Port("a.test:0".into())));
    }
}
