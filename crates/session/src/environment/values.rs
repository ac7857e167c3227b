//! What single values of an environment file look like: hosts, sizes, times, packages, references of images.

use std::time::Duration;

use crate::keys::distance;

use hob_sandbox::image::ImageReference;

/// `host`, `host:port` or `*.host`.
pub(super) fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let name = name.strip_prefix("*.").unwrap_or(name);
    port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// A name of a variable or a secret: letters, digits and `_`, and no digit first.
pub(super) fn is_variable(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A name of a check or a service that a person reads in a line.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && !name.chars().any(|c| c.is_control() || c == '`')
}

/// A path that stays in the repository, without what says nothing: `./web/` is `web`.
pub(super) fn inside(path: &str) -> Option<String> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") || path.chars().any(char::is_control) {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Some(parts.join("/"))
}

/// `name`, `name:arch`, `name=version` or `name/suite`, as apt-get takes it (Debian policy §5.6.1).
pub(super) fn is_apt(package: &str) -> bool {
    let end = package.find(['=', '/', ':']).unwrap_or(package.len());
    let (name, rest) = package.split_at(end);
    let of_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    let of_rest = |b: u8| b.is_ascii_alphanumeric() || b"+-.:~=/*_".contains(&b);
    name.len() >= 2
        && package.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(of_name)
        && rest.len() != 1
        && rest.bytes().all(of_rest)
}

/// What pip and npm take as a package, and never an option or two words.
pub(super) fn is_package(package: &str) -> bool {
    package.len() <= 500
        && package.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '@')
        && package.bytes().all(|b| b.is_ascii_graphic() && !b"'\"`\\;|&$".contains(&b))
}

/// A suite of Debian: `bookworm`, `trixie-backports`.
pub(super) fn is_suite(suite: &str) -> bool {
    suite.len() <= 40
        && suite.starts_with(|c: char| c.is_ascii_lowercase())
        && suite.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

/// A name that images can be pulled by.
pub(super) fn is_image(reference: &str) -> bool {
    ImageReference::parse(reference).is_ok()
}

/// `512 MiB`, `4GiB`, `2 GB`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor: u64 = match text[digits..].trim() {
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

/// `90s`, `10m`, `1h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor = match text[digits..].trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor).map(Duration::from_secs)
}

/// The known key that is fewest edits away, if it is near at all.
pub(super) fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let near = |candidate: &&'static str| distance(key, candidate) <= 2.max(candidate.len() / 3);
    known.iter().copied().filter(near).min_by_key(|candidate| distance(key, candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_never_options() {
        for fits in ["git", "libpq-dev=15.*", "g++", "redis/bookworm-backports", "libc6:arm64"] {
            assert!(is_apt(fits), "{fits}");
        }
        for not in ["-y", "git curl", "Git", "x", "git=", "a;b"] {
            assert!(!is_apt(not), "{not}");
        }
        for fits in ["ruff==0.5", "uvicorn[standard]>=0.3,<1", "@angular/cli@17", "git+https://example.org/a.git"] {
            assert!(is_package(fits), "{fits}");
        }
        for not in ["--index-url=x", "a b", "a;b", "$(a)"] {
            assert!(!is_package(not), "{not}");
        }
    }

    #[test]
    fn a_path_stays_in_the_repository() {
        assert_eq!(inside("./web//app/").as_deref(), Some("web/app"));
        assert_eq!(inside(".").as_deref(), Some(""));
        assert_eq!(inside("/etc"), None);
        assert_eq!(inside("a/../../b"), None);
    }
}
