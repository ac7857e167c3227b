//! Names of images, such as `debian:12` or `ghcr.io/somebody/tools@sha256:…`.

use std::fmt;

use super::digest::Digest;
use super::error::ImageError;

/// Where names without a registry are looked for, as every tool does.
const DEFAULT_REGISTRY: &str = "docker.io";

/// The longest name of a repository.
const NAME_MAX: usize = 255;

/// The name of an image: a registry, a repository in it, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// Reads a name: `[REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST]`. Without a tag and a digest it is `latest`.
    ///
    /// # Errors
    /// A part of it is not what the specification of registries allows.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let wrong = |reason| ImageError::Reference { text: text.chars().take(300).collect(), reason };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::parse(digest).ok_or_else(|| wrong("after @ comes sha256: and 64 digits"))?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            // A colon before a slash is the registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("a tag is at most 128 letters, digits, dots, dashes and underlines"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => (first, rest.to_owned()),
            _ => (DEFAULT_REGISTRY, name.to_owned()),
        };
        let is_short = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = if is_short { format!("library/{repository}") } else { repository };
        if !is_registry(registry) {
            return Err(wrong("a registry is a host name or address, with or without a port"));
        }
        if repository.len() > NAME_MAX || !repository.split('/').all(is_name) {
            return Err(wrong("a repository is lower-case words with digits, joined by . _ - and /"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// The registry, such as `docker.io` or `localhost:5000`; credentials are for it.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, where the name has one: it always means the same image.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry's API is asked for: the digest where there is one, or else the tag.
    pub(super) fn wanted(&self) -> String {
        self.digest.as_ref().map_or_else(|| self.tag.clone().unwrap_or_default(), ToString::to_string)
    }

    /// The host that answers for the registry.
    pub(super) fn host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { &self.registry }
    }

    /// Whether the registry is on this machine, where it needs no TLS.
    pub(super) fn is_local(&self) -> bool {
        let host = self.registry.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        is_loopback(host.map_or(self.registry.as_str(), |(host, _)| host))
    }
}

/// Whether a host of a URL is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

fn is_tag(tag: &str) -> bool {
    let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Words of lower-case letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_name(name: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().last()];
    let joints = name.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|joint| !joint.is_empty());
    ends.iter().all(|end| end.is_some_and(is_word))
        && joints.into_iter().all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_label = |label: &str| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            };
            host.len() <= 253 && host.split('.').all(is_label)
        }
    };
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(
            ImageReference::parse(text).map(|reference| reference.to_string()).unwrap_or_default(),
            expect,
            "{text}"
        );
    }

    #[test]
    fn names_are_read_as_other_tools_read_them() {
        check("debian", "docker.io/library/debian:latest");
        check("debian:12", "docker.io/library/debian:12");
        check("somebody/tools", "docker.io/somebody/tools:latest");
        check("docker.io/debian", "docker.io/library/debian:latest");
        check("ghcr.io/a/b/c:v1.2-x_y", "ghcr.io/a/b/c:v1.2-x_y");
        check("localhost:5000/x", "localhost:5000/x:latest");
        check("localhost/x", "localhost/x:latest");
        check("[::1]:5000/x:t", "[::1]:5000/x:t");
        check("127.0.0.1:5000/a__b/c--d.e", "127.0.0.1:5000/a__b/c--d.e:latest");
        let digest = format!("sha256:{}", "0a".repeat(32));
        check(&format!("x@{digest}"), &format!("docker.io/library/x@{digest}"));
        check(&format!("x:t@{digest}"), &format!("docker.io/library/x:t@{digest}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in
            ["", "Debian", "a//b", "a/../b", "x:", "x:a b", "x:-", "x@sha256:12", "x@md5:12", ".x", "x_-y", "x.."]
        {
            check(text, "");
        }
        for text in
            ["host.:1/x", "host:0/x", "host:99999/x", "-.a/x", "a.b/", "http://host/x", "user@host.org/x", "[::1/x"]
        {
            check(text, "");
        }
        check(&format!("{}/x", "a".repeat(300)), "");
        check(&format!("x:{}", "t".repeat(129)), "");
    }

    #[test]
    fn only_this_machines_registries_need_no_tls() {
        let local = |text: &str| ImageReference::parse(text).unwrap().is_local();
        assert!(
            ["localhost/x", "localhost:1/x", "127.0.0.1:5000/x", "127.9.9.9:1/x", "[::1]:5000/x"]
                .iter()
                .all(|t| local(t))
        );
        assert!(
            !["x", "localhost.evil.org/x", "10.0.0.1:5000/x", "127.0.0.1.evil.org/x", "[::2]:1/x"]
                .iter()
                .any(|t| local(t))
        );
    }

    proptest! {
        #[test]
        fn what_is_read_is_read_again_as_the_same(text in "[a-z0-9.:/@_-]{0,30}") {
            if let Ok(reference) = ImageReference::parse(&text) {
                prop_assert_eq!(ImageReference::parse(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
