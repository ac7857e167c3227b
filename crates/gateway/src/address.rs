//! Which IP addresses a sandbox may reach: public ones; private ones where a rule says so; some never.
//!
//! The check runs on the resolved address that is then connected to, so that no name, however it is written and
//! however often its answer changes, leads to a place that was not checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of place an address is, seen from the machine that the gateway runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The internet.
    Public,
    /// This machine or its own networks: reachable only where a rule says `private`.
    Private,
    /// Cloud metadata, link-local, multicast, unspecified or reserved: reachable never.
    Never,
}

/// Metadata services that live in ranges which are otherwise merely private.
const METADATA_V4: [Ipv4Addr; 1] = [Ipv4Addr::new(100, 100, 100, 200)];
const METADATA_V6: [Ipv6Addr; 1] = [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)];

/// Sorts an address by the special-purpose registries of IANA (RFC 6890 and its updates).
///
/// The documentation networks count as public: nobody lives there, so there is nothing to protect, and labs use
/// them as stand-ins for the internet.
pub(crate) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        _ if METADATA_V4.contains(&address) => Reach::Never,
        (0, ..) | (169, 254, _) | (224..=255, ..) => Reach::Never,
        (192, 0, 0) | (192, 88, 99) => Reach::Never,
        (10 | 127, ..) | (172, 16..=31, _) | (192, 168, _) => Reach::Private,
        (100, 64..=127, _) | (198, 18..=19, _) => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if let Some(v4) = embedded_v4(address) {
        return reach_v4(v4);
    }
    let segments = address.segments();
    match segments[0] {
        _ if METADATA_V6.contains(&address) => Reach::Never,
        _ if address.is_loopback() => Reach::Private,
        0xfc00..=0xfdff => Reach::Private,
        // IETF protocol assignments below 2001:200::, Teredo among them.
        0x2001 if segments[1] < 0x0200 => Reach::Never,
        0x2000..=0x3fff => Reach::Public,
        _ => Reach::Never,
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped, NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => Some(join(g, h)),
        (0x2002, high, low, ..) => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expect: Reach) {
        assert_eq!(reach(address.parse().unwrap()), expect, "{address}");
    }

    #[test]
    fn the_internet_is_public() {
        for address in
            ["1.1.1.1", "151.101.2.217", "203.0.113.80", "2606:4700::1111", "2a04:4e42::729", "64:ff9b::101:101"]
        {
            check(address, Reach::Public);
        }
    }

    #[test]
    fn own_networks_are_private() {
        for address in [
            "127.0.0.1",
            "127.255.1.2",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.9.9",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "::1",
            "fd12:3456::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            check(address, Reach::Private);
        }
    }

    #[test]
    fn metadata_and_odd_ranges_are_never_reached() {
        for address in [
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.0.192",
            "100.100.100.200",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "::7f00:1",
            "2001::1",
        ] {
            check(address, Reach::Never);
        }
    }
}
