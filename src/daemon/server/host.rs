//! Checks the `Host` header of requests, against DNS rebinding.
//!
//! A web page can make its own host name resolve to the address of this server, and then read from it if no token is required. Such
//! requests have the page's host name in the `Host` header. Therefore, if no token is required, only addresses, `localhost` and configured
//! names are accepted. Single-label names, `*.local`, `*.svc` and the like are not: an attacker in the same network or cluster can register
//! one.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;

/// Returns whether the host of a request is accepted. `hosts` contains names, or `*.` and a suffix.
pub(super) fn is_accepted(request: &Request, hosts: &[String]) -> bool {
    let header = || request.headers().get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
    // In HTTP/2 it is part of the URI. HTTP/1.0 has none, but no browser uses HTTP/1.0.
    match request.uri().authority().cloned().or_else(header) {
        Some(authority) => is_accepted_name(authority.host(), hosts),
        None => !request.headers().contains_key(HOST),
    }
}

fn is_accepted_name(host: &str, hosts: &[String]) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    address.parse::<std::net::IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || hosts.iter().any(|pattern| {
            let pattern = pattern.to_ascii_lowercase();
            match pattern.strip_prefix('*') {
                Some(suffix) => {
                    suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix)
                }
                None => host == pattern,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::is_accepted_name;

    #[test]
    fn only_addresses_localhost_and_configured_names_are_accepted() {
        let hosts = ["alerts.Example.com".to_owned(), "pullwatch".to_owned(), "*.security.svc".to_owned()];
        for (host, is_accepted) in [
            ("127.0.0.1", true),
            ("[::1]", true),
            ("10.0.0.7", true),
            ("localhost", true),
            ("x.localhost", true),
            ("ALERTS.example.com", true),
            ("alerts.example.com.", true),
            ("pullwatch", true),
            ("pullwatch.security.svc", true),
            (".security.svc", false),
            ("security.svc", false),
            ("printer", false),
            ("evil", false),
            ("evil.local", false),
            ("pullwatch.security.svc.cluster.local", false),
            ("evil.default.svc", false),
            ("vm.internal", false),
            ("evil.home.arpa", false),
            ("evil.example.com", false),
            ("127.0.0.1.nip.io", false),
            ("svc.example", false),
            ("", false),
        ] {
            assert_eq!(is_accepted_name(host, &hosts), is_accepted, "{host}");
        }
    }
}
