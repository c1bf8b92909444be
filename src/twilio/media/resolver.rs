//! [`PublicResolver`]: a DNS resolver that returns public addresses only.
//!
//! The owner of a name decides its addresses at any moment, so they are checked when the client connects.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The system's resolver, restricted to hosts with public addresses only.
pub(super) struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Port 0 is a placeholder: the client sets the port of the URL.
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses = require_public(addresses)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The error for a host with a private address.
#[derive(Debug, thiserror::Error)]
#[error("the host name resolves to a private address")]
struct PrivateAddressError;

/// Returns true if a call failed because its host has a private address.
// The client wraps the resolver's error, so search the chain of sources.
pub(super) fn is_private_address_error(error: &(dyn Error + 'static)) -> bool {
    error.is::<PrivateAddressError>() || error.source().is_some_and(is_private_address_error)
}

/// Returns all addresses, or an error if one of them is private.
// One private address rejects the host: a host that has addresses of both kinds is not trustworthy.
fn require_public(
    addresses: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, PrivateAddressError> {
    let addresses: Vec<_> = addresses.collect();
    if addresses.iter().all(|address| is_public(address.ip())) {
        return Ok(addresses);
    }
    Err(PrivateAddressError)
}

/// Returns true for an address that is globally reachable on the internet.
///
/// Source: IANA's special-purpose address registries.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        // Special ranges, one per line: this network, shared by carriers, IETF protocols, 6to4 relays, benchmarks,
        // reserved.
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [a, b, ..] = segments;
    let is_embedded_public = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    // NAT64 and 6to4 addresses contain an IPv4 address, to which the network forwards packets: check that one.
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] = segments {
        return is_embedded_public(high, low);
    }
    // Only 2000::/3 is allocated for global use. Teredo and other protocols (2001::/23) and documentation
    // (2001:db8::/32, 3fff::/20) are parts of it. IPv4-mapped addresses are outside it.
    let is_allocated = a & 0xe000 == 0x2000;
    let is_special = (a == 0x2001 && (b < 0x200 || b == 0xdb8)) || (a == 0x3fff && b < 0x1000);
    is_allocated && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_33_non_public_address_is_rejected() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "fec0::1",
            "100::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "54.231.0.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn host_with_any_private_address_is_rejected() {
        let addresses = |texts: &[&str]| {
            let parsed: Vec<SocketAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            require_public(parsed.into_iter())
                .ok()
                .map(|found| found.len())
        };
        assert_eq!(
            addresses(&["8.8.8.8:443", "[2606:4700::1111]:443"]),
            Some(2)
        );
        assert_eq!(addresses(&["8.8.8.8:443", "10.0.0.1:443"]), None);
        assert_eq!(addresses(&["[::1]:443"]), None);
    }
}
