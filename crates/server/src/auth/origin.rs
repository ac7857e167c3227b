//! Whether a browser may have sent a request: `Host` against DNS rebinding, `Origin` and `Sec-Fetch-Site` against pages
//! of other sites.
//!
//! A page elsewhere can point a name of its own at 127.0.0.1 and then shares its origin with this server; it cannot
//! change what `Host` says. It can also send forms and open WebSockets to our name, with the cookie where the browser
//! lets it; it cannot change what `Origin` says. Addresses are safe as `Host`: nobody can rebind a number.

use std::net::IpAddr;

use http::{HeaderMap, Method, Uri, header};

use crate::problem::Problem;

/// The names under which the server is reached, beside `localhost` and plain addresses.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// The names of `server.hosts`.
    pub fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    fn allow(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || bare.parse::<IpAddr>().is_ok() || self.0.iter().any(|known| known == name)
    }
}

/// Refuses a request that a page of another site could have caused.
///
/// # Errors
/// The problem to answer with.
pub fn check(hosts: &Hosts, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let host =
        headers.get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| uri.authority().map(|a| a.as_str()));
    let Some(host) = host else { return Err(Problem::malformed("the request has no Host header")) };
    if !hosts.allow(host) {
        return Err(Problem::forbidden(format!(
            "the server is not known as {:?}; if it should be, add the name to server.hosts in hob.toml",
            without_port(host)
        )));
    }
    let upgrade = headers.contains_key(header::UPGRADE);
    if matches!(*method, Method::GET | Method::HEAD) && !upgrade {
        return Ok(());
    }
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return Err(Problem::forbidden("a page of another site may not do this"));
    }
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) => match origin.to_str().ok().and_then(|origin| origin.split_once("://")) {
            Some((_, authority)) if same_authority(authority, host) => Ok(()),
            _ => Err(Problem::forbidden("a page of another origin may not do this")),
        },
    }
}

fn same_authority(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            // `[::1]:80` and `name:80` have a port; `::1` alone does not.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check_request(method: &Method, headers: &[(&'static str, &'static str)], allowed: bool) {
        let hosts = Hosts::new(&["hob.example".into()]);
        let map =
            headers.iter().map(|(k, v)| (header::HeaderName::from_static(k), HeaderValue::from_static(v))).collect();
        let result = check(&hosts, method, &Uri::from_static("/api/v1/sessions"), &map);
        assert_eq!(result.is_ok(), allowed, "{method} {headers:?}: {result:?}");
    }

    #[test]
    fn only_our_own_names_are_answered() {
        for host in
            ["localhost", "localhost:4660", "127.0.0.1:4660", "[::1]:4660", "[::1]", "hob.example", "HOB.example:80"]
        {
            check_request(&Method::GET, &[("host", host)], true);
        }
        for host in ["evil.example", "evil.example:4660", "127.0.0.1.evil.example", "localhost.evil.example", ""] {
            check_request(&Method::GET, &[("host", host)], false);
        }
        check_request(&Method::GET, &[], false);
    }

    #[test]
    fn another_page_changes_nothing() {
        let host = ("host", "localhost:4660");
        check_request(&Method::POST, &[host], true);
        check_request(&Method::POST, &[host, ("origin", "http://localhost:4660")], true);
        check_request(&Method::POST, &[host, ("origin", "http://evil.example")], false);
        check_request(&Method::POST, &[host, ("origin", "http://localhost:4661")], false);
        check_request(&Method::POST, &[host, ("origin", "null")], false);
        check_request(&Method::DELETE, &[host, ("sec-fetch-site", "cross-site")], false);
        check_request(&Method::DELETE, &[host, ("sec-fetch-site", "same-site")], false);
        check_request(&Method::DELETE, &[host, ("sec-fetch-site", "same-origin")], true);
    }

    #[test]
    fn another_page_opens_no_socket() {
        let socket = [("host", "localhost:4660"), ("upgrade", "websocket")];
        check_request(&Method::GET, &socket, true);
        check_request(&Method::GET, &[socket[0], socket[1], ("origin", "http://evil.example")], false);
        check_request(&Method::GET, &[socket[0], ("sec-fetch-site", "cross-site")], true);
    }
}
