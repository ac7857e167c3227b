//! The HTTP client for registries, and the addresses that it may be led to.

use std::time::Duration;

use reqwest::Url;

use super::reference::is_loopback;

/// How long a registry may take to answer at first, and between two pieces of an answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Redirects that are followed: registries hand out blobs from elsewhere.
const REDIRECTS: usize = 5;

/// Whether an address that a registry names may be asked: over TLS, or on this machine where the registry is.
pub(super) fn may_ask(url: &Url, local: bool) -> bool {
    url.scheme() == "https" || (local && url.scheme() == "http" && url.host_str().is_some_and(is_loopback))
}

/// A client for a registry, which may be on this machine.
pub(super) fn client(local: bool) -> Result<reqwest::Client, reqwest::Error> {
    // An error means that the program has chosen a provider already, which is as good.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("the program's own TLS provider is used");
    }
    let redirect = reqwest::redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS || !may_ask(attempt.url(), local) {
            return attempt.error("it leads to an address that is not asked");
        }
        attempt.follow()
    });
    let builder = reqwest::Client::builder()
        .user_agent(concat!("hob/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect)
        .referer(false)
        // A digest is of the bytes as they are.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(SILENCE_LIMIT);
    // The proxy of the environment is for what is elsewhere.
    if local { builder.no_proxy().build() } else { builder.build() }
}

/// An error with its causes: the cause is what tells a name that is not known from a certificate that is not trusted.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_a_registry_names_need_tls_or_are_on_this_machine_as_it_is() {
        let check = |url: &str, local, expect| assert_eq!(may_ask(&Url::parse(url).unwrap(), local), expect, "{url}");
        check("https://auth.example.org/token", false, true);
        check("http://auth.example.org/token", false, false);
        check("http://127.0.0.1:1/token", false, false);
        check("http://169.254.169.254/latest", false, false);
        check("http://127.0.0.1:1/token", true, true);
        check("http://[::1]:1/token", true, true);
        check("http://169.254.169.254/latest", true, false);
        check("file:///etc/passwd", true, false);
    }
}
