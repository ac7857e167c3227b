//! What a registry asks for before it answers: the `WWW-Authenticate` header of RFC 9110, section 11.6.1.

/// How to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token that another address hands out.
    Bearer {
        /// The address.
        realm: String,
        /// Whom the token is for.
        service: Option<String>,
        /// What it is to allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge of a header that we can meet; a token is preferred.
    pub(super) fn read(header: &str) -> Option<Self> {
        let (mut basic, mut bearer) = (false, None);
        let mut rest = header.trim_start();
        while !rest.is_empty() {
            let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
            let (parameters, after) = parameters(after);
            let find = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            if scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            } else if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = find("realm")
            {
                bearer = Some(Self::Bearer { realm, service: find("service"), scope: find("scope") });
            }
            rest = after;
        }
        bearer.or(basic.then_some(Self::Basic))
    }
}

/// `key=value` or `key="value"`, separated by commas, up to the next scheme; and what comes after.
fn parameters(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches([' ', ',']);
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(text.len());
        let (key, after) = text.split_at(end);
        let Some(after) = after.strip_prefix('=').filter(|_| !key.is_empty()) else { break };
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find([',', ' ']).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        found.push((key.to_ascii_lowercase(), value));
        text = after;
    }
    // What is neither a parameter nor the word of a scheme is given up.
    let is_scheme = text.starts_with(|c: char| c.is_ascii_alphabetic());
    (found, if is_scheme { text } else { "" })
}

/// The text up to the closing quote, and what comes after.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(header: &str, expect: impl Into<Option<Challenge>>) {
        assert_eq!(Challenge::read(header), expect.into(), "{header}");
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) })
    }

    #[test]
    fn challenges_are_read_whatever_their_order_and_quotes() {
        check(r#"Basic realm="registry""#, Challenge::Basic);
        check("basic", Challenge::Basic);
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expect =
            bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push"));
        check(text, expect);
        check(
            r#"BEARER Realm=https://a/b , service="with \"quotes\"""#,
            bearer("https://a/b", Some("with \"quotes\""), None),
        );
        check(r#"Basic realm="x", Bearer realm="y""#, bearer("y", None, None));
        check(r#"Bearer realm="y", Basic realm="x""#, bearer("y", None, None));
        check(r#"Bearer service="x""#, None);
        check("", None);
        check("Negotiate", None);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_hang(header in "[ -~äß]{0,80}") {
            Challenge::read(&header);
        }
    }
}
