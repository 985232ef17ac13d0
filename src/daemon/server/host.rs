//! By which names the server may be asked.
//!
//! A page in a browser can have its own name resolve to 127.0.0.1 and then read what a server there says to anybody (DNS rebinding). Its
//! requests carry the page's name as `Host`. So, where no token is asked for, a name that somebody could own is refused unless
//! the settings name it; addresses, `localhost` and names that only resolve inside are not.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;

/// Ends of names that nobody can own on the internet: of Kubernetes, RFC 6762, RFC 6761 and ICANN's `internal`.
const INSIDE: [&str; 5] = [".svc", ".local", ".localhost", ".internal", ".home.arpa"];

/// Whether a request came for a name of ours.
pub(super) fn is_ours(request: &Request, ours: &[String]) -> bool {
    let header = || request.headers().get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
    // HTTP/2 has it in the URI. HTTP/1.0 has none, and no browser speaks it.
    match request.uri().authority().cloned().or_else(header) {
        Some(authority) => is_name_of_ours(authority.host(), ours),
        None => !request.headers().contains_key(HOST),
    }
}

fn is_name_of_ours(host: &str, ours: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    !host.contains('.')
        || host.parse::<std::net::Ipv4Addr>().is_ok()
        || INSIDE.iter().any(|end| host.ends_with(end))
        || ours.iter().any(|name| name.eq_ignore_ascii_case(&host))
}

#[cfg(test)]
mod tests {
    use super::is_name_of_ours;

    #[test]
    fn names_that_somebody_could_own_are_not_ours() {
        let ours = ["alerts.example.com".to_owned()];
        for (host, is_ours) in [
            ("127.0.0.1", true),
            ("[::1]", true),
            ("10.0.0.7", true),
            ("localhost", true),
            ("pullwatch", true),
            ("pullwatch.security.svc", true),
            ("pullwatch.security.svc.cluster.local", true),
            ("ALERTS.example.com", true),
            ("evil.example.com", false),
            ("evil.example.com.", false),
            ("127.0.0.1.nip.io", false),
            ("svc.example", false),
        ] {
            assert_eq!(is_name_of_ours(host, &ours), is_ours, "{host}");
        }
    }
}
