//! Converts the Prometheus text format to OpenMetrics.

/// Formats in which metrics are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exposition {
    /// The Prometheus text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// Chooses the format requested by an `Accept` header: OpenMetrics if it is listed without a weight of 0.
    pub fn negotiate(accept: &str) -> Self {
        let asks = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"))
                && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
        });
        if asks { Exposition::OpenMetrics } else { Exposition::Text }
    }

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Exposition::Text => "text/plain; version=0.0.4; charset=utf-8",
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Differences: the family name of a counter has no suffix `_total`, quotes in help texts are escaped, and the end is marked.
pub(super) fn to_open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The type, which determines the name, is on the next line.
            help = rest.split_once(' ');
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let family = if kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
            if let Some((_, text)) = help.take() {
                let text = text.replace('"', "\\\"");
                out.extend(["# HELP ", family, " ", &text, "\n"]);
            }
            out.extend(["# TYPE ", family, " ", kind, "\n"]);
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_decides_on_the_format() {
        for (accept, format) in [
            ("", Exposition::Text),
            ("*/*", Exposition::Text),
            ("text/plain;version=0.0.4", Exposition::Text),
            (
                "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Exposition::OpenMetrics,
            ),
            ("application/openmetrics-text;q=0,text/plain", Exposition::Text),
        ] {
            assert_eq!(Exposition::negotiate(accept), format, "{accept}");
        }
    }

    #[test]
    fn families_of_counters_lose_their_suffix() {
        let text =
            "# HELP a_total Say \"a\".\n# TYPE a_total counter\na_total{b=\"c\"} 1\n# TYPE g gauge\ng 2\n";
        assert_eq!(
            to_open_metrics(text),
            "# HELP a Say \\\"a\\\".\n# TYPE a counter\na_total{b=\"c\"} 1\n# TYPE g gauge\ng 2\n# EOF\n"
        );
    }
}
