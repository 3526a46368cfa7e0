//! URLs of servers, taken apart just far enough to check them and to show them without a password.

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// `nats`, `tls`, `http`.
    pub scheme: String,
    /// `user:password` or a token.
    pub userinfo: Option<String>,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port, if written.
    pub port: Option<u16>,
    /// Path with its leading slash, or empty.
    pub path: String,
}

/// The schemes of client connections.
pub const NATS_SCHEMES: &[&str] = &["nats", "tls"];

/// Takes `text` apart. Where `bare` is given, it is the scheme of a URL that has none.
///
/// # Errors
/// A fragment that says what is wrong, without any password.
pub fn parse(text: &str, schemes: &[&str], bare: Option<&str>) -> Result<ServerUrl, String> {
    let shown = redact(text);
    let (scheme, rest) = match (text.split_once("://"), bare) {
        (Some((scheme, rest)), _) => (scheme.to_ascii_lowercase(), rest),
        (None, Some(bare)) => (bare.to_owned(), text),
        (None, None) => return Err(format!("{shown:?} has no scheme")),
    };
    if !schemes.contains(&scheme.as_str()) {
        return Err(format!("{shown:?} has the scheme {scheme:?}"));
    }
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (userinfo, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user.to_owned()), address),
        None => (None, authority),
    };
    let (host, port) = host_and_port(address).ok_or(format!("{shown:?} has no valid port"))?;
    if host.is_empty() {
        return Err(format!("{shown:?} has no host"));
    }
    if let Some(bad) = host.chars().find(|c| c.is_whitespace() || *c == ',') {
        return Err(format!("{shown:?} has the character {bad:?} in its host"));
    }
    Ok(ServerUrl {
        scheme,
        userinfo,
        host: host.to_owned(),
        port,
        path: path.to_owned(),
    })
}

/// The list of URLs in `text`, which separates them by commas as `NATS_URL` does.
#[must_use]
pub fn split(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `text` without what stands before the `@` of each URL in it.
#[must_use]
pub fn redact(text: &str) -> String {
    let one = |url: &str| {
        let start = url.find("://").map_or(0, |at| at + 3);
        let end = url[start..].find('/').map_or(url.len(), |at| start + at);
        match url[start..end].rfind('@') {
            Some(at) => format!("{}***{}", &url[..start], &url[start + at..]),
            None => url.to_owned(),
        }
    };
    text.split(',').map(one).collect::<Vec<_>>().join(",")
}

fn host_and_port(address: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match address.split_once(':') {
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((address, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        for (url, shown) in [
            ("nats://u:p@h:4222", "nats://***@h:4222"),
            ("u:p@h", "***@h"),
            ("nats://a,tls://u:p@b/x@y", "nats://a,tls://***@b/x@y"),
            ("nats://h:4222", "nats://h:4222"),
        ] {
            assert_eq!(redact(url), shown);
        }
        let error = parse("nats://u:secret@h:port", NATS_SCHEMES, None).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn urls_come_apart() {
        let url = parse("h", NATS_SCHEMES, Some("nats")).unwrap();
        assert_eq!((url.host.as_str(), url.port), ("h", None));
        let url = parse("tls://[::1]:7/x", NATS_SCHEMES, None).unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", Some(7)));
        assert_eq!(url.path, "/x");
    }

    #[test]
    fn what_is_no_server_url_is_refused() {
        for bad in [
            "",
            "nats://",
            "ws://h",
            "nats://h:x",
            "nats://h:70000",
            "a b",
            "nats://[::1",
        ] {
            assert!(parse(bad, NATS_SCHEMES, Some("nats")).is_err(), "{bad:?}");
        }
    }
}
