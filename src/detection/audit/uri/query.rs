//! Query parameters as Go's `url.URL.Query` returns them, and their conversion to options of a request.
//!
//! Sources: `net/url` (`parseQuery`, `unescape`) of Go 1.16, 1.17 and 1.26; `k8s.io/apimachinery/pkg/runtime/conversion.go`. A pair that
//! Go's parser rejects is dropped, and the others are kept. If a key is repeated, the first value counts.

use std::borrow::Cow;

use super::field_selector::FieldSelector;
use super::label_selector::required_labels;
use super::{decode, is_well_encoded, query_part};

/// The number of parameters above which current versions of Go return none at all (`GODEBUG=urlmaxqueryparams`).
const MAX_PARAMETERS: usize = 10_000;

/// Query syntax that versions of Go treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Separators {
    /// Go 1.17 and later (Kubernetes 1.23 and later): a pair with a `;` is dropped.
    Ampersand,
    /// Go 1.16 and earlier: `;` separates pairs as `&` does.
    AmpersandAndSemicolon,
}

/// A key and its value, decoded.
type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The parameters of a query in order, as one version of the apiserver reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pairs: Vec<Pair<'a>>,
}

impl<'a> Query<'a> {
    fn parse(query: &'a [u8], separators: Separators) -> Self {
        let is_separator =
            |byte: &u8| *byte == b'&' || *byte == b';' && separators == Separators::AmpersandAndSemicolon;
        let pairs = query.split(is_separator).filter(|pair| !pair.is_empty()).filter_map(|pair| {
            if !is_well_encoded(pair) || memchr::memchr(b';', pair).is_some() {
                return None;
            }
            let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            Some((decode(&pair[..equals]), decode(pair.get(equals + 1..).unwrap_or_default())))
        });
        Query { pairs: pairs.collect() }
    }

    /// The values of a key, in order. A key without `=` has an empty value.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        self.pairs.iter().filter(move |(name, _)| **name == *key.as_bytes()).map(|(_, value)| &**value)
    }

    /// The first value of a key: the one that the apiserver uses for every option but `dryRun`.
    pub(crate) fn first(&self, key: &str) -> Option<&[u8]> {
        self.all(key).next()
    }

    /// A boolean option. `None` if it is absent, which the apiserver treats as false. Only `0` and `false` in any case are false; an empty
    /// value is true.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.first(key).map(|value| !(value == b"0" || is_false(value)))
    }

    /// Whether the query asks for a dry run. For a deletion this holds only if the request had no body: the apiserver ignores
    /// the options of the query if there is one.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.all("dryRun").next().is_some()
    }

    /// The field selector. `Err` if it is malformed, in which case the apiserver answers 400. An absent or empty one selects everything.
    pub(crate) fn field_selector(&self) -> Result<FieldSelector, super::field_selector::Malformed> {
        FieldSelector::parse(self.first("fieldSelector").unwrap_or_default())
    }
}

/// Go's `strings.EqualFold(value, "false")`, which takes the long s (U+017F) for an s.
fn is_false(value: &[u8]) -> bool {
    match value {
        [f, a, l, 0xc5, 0xbf, e] => [*f, *a, *l, b's', *e].eq_ignore_ascii_case(b"false"),
        _ => value.eq_ignore_ascii_case(b"false"),
    }
}

/// Every reading that a version of the apiserver has of a URI's query, the current one first. Properties that exclude a request from
/// suspicion must hold in [all](Readings::all) of them, properties that make it suspicious in [any](Readings::any).
#[derive(Clone, Debug)]
pub(crate) struct Readings<'a> {
    current: Query<'a>,
    others: Vec<Query<'a>>,
}

impl<'a> Readings<'a> {
    pub(crate) fn of(uri: &'a [u8]) -> Self {
        let query = query_part(uri);
        let mut readings =
            Readings { current: Query::parse(query, Separators::Ampersand), others: Vec::new() };
        if memchr::memchr(b';', query).is_some() {
            readings.others.push(Query::parse(query, Separators::AmpersandAndSemicolon));
        }
        if memchr::memchr_iter(b'&', query).count() >= MAX_PARAMETERS {
            readings.others.push(std::mem::take(&mut readings.current));
        }
        readings
    }

    /// The reading of current versions of the apiserver.
    pub(crate) fn current(&self) -> &Query<'a> {
        &self.current
    }

    pub(crate) fn all(&self, mut holds: impl FnMut(&Query<'a>) -> bool) -> bool {
        holds(&self.current) && self.others.iter().all(holds)
    }

    pub(crate) fn any(&self, mut holds: impl FnMut(&Query<'a>) -> bool) -> bool {
        holds(&self.current) || self.others.iter().any(holds)
    }

    /// Whether the field selector certainly excludes every object whose `field` has one of `values`. A malformed selector excludes nothing;
    /// the apiserver's answer is in the status.
    pub(crate) fn excludes_field(&self, field: &str, values: &[&[u8]]) -> bool {
        self.all(|query| {
            query
                .field_selector()
                .is_ok_and(|selector| values.iter().all(|value| !selector.may_match(field, value)))
        })
    }

    /// Whether the label selector certainly restricts the result to objects that carry a certain label with a certain value. A malformed
    /// one does not.
    pub(crate) fn requires_label(&self) -> bool {
        self.all(|query| {
            let selector = query.first("labelSelector").unwrap_or_default();
            required_labels(selector).is_ok_and(|labels| !labels.is_empty())
        })
    }

    /// Whether the field selector may ask for objects whose `field` has one of `values` and for no others.
    pub(crate) fn may_require_field(&self, field: &str, values: &[&[u8]]) -> bool {
        self.any(|query| {
            query
                .field_selector()
                .is_ok_and(|selector| selector.required(field).any(|value| values.contains(&value)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: [&[u8]; 2] = [b"kubernetes.io/dockerconfigjson", b"kubernetes.io/dockercfg"];

    fn excludes(query: &str) -> bool {
        let uri = format!("/api/v1/namespaces/p/secrets?{query}");
        Readings::of(uri.as_bytes()).excludes_field("type", &CREDENTIALS)
    }

    /// Measured on kube-apiserver 1.36.3: which queries returned a secret of type `kubernetes.io/dockerconfigjson`.
    #[test]
    fn agrees_with_a_real_apiserver() {
        for returned in [
            "fieldSelector=&fieldSelector=type%3DOpaque",
            "fieldSelector=type%21%3DOpaque&fieldSelector=type%3DOpaque",
            "x;fieldSelector=type%3DOpaque",
            "fieldSelector=type%3DOpaque%zz",
            "labelSelector=a%21%3Db",
        ] {
            assert!(!excludes(returned), "{returned}");
        }
        assert!(excludes("fieldSelector=type%3DOpaque"));
        let long = format!("fieldSelector={}type!=Opaque", "metadata.name!=x,".repeat(4000));
        assert!(!excludes(&long));
        for (query, is_watch) in [
            ("watch=true", true),
            ("watch=1", true),
            ("watch=maybe", true),
            ("watch=", true),
            ("watch", true),
        ]
        .into_iter()
        .chain([("watch=false", false), ("watch=0", false), ("watch=FALSE", false), ("x=1", false)])
        {
            let uri = format!("/api/v1/secrets?{query}");
            let readings = Readings::of(uri.as_bytes());
            assert_eq!(readings.current().flag("watch").unwrap_or_default(), is_watch, "{query}");
        }
    }

    #[test]
    fn excludes_only_what_every_version_excludes() {
        for (query, expected) in [
            ("fieldSelector=type=Opaque", true),
            ("fieldSelector=type==Opaque", true),
            ("fieldSelector=metadata.name!=a,type=Opaque", true),
            ("field%53elector=type%3dOpaque&fieldSelector=", true),
            ("fieldSelector=type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg", true),
            ("fieldSelector=type!=kubernetes.io/dockerconfigjson", false),
            ("fieldSelector=type=kubernetes.io/dockercfg", false),
            ("fieldSelector=type%3Dkubernetes.io\\/dockercfg", false),
            ("fieldSelector=type!=Opaque", false),
            ("fieldselector=type=Opaque", false),
            // A field that the apiserver does not know, so it rejects the request.
            ("fieldSelector=+type=Opaque", false),
            ("FieldSelector=type=Opaque&fieldSelector", false),
            ("fieldSelector=%3D&fieldSelector=type=Opaque", false),
            // `;` was a separator before Go 1.17.
            ("a=1;fieldSelector=&fieldSelector=type%3DOpaque", false),
            ("fieldSelector=type%3DOpaque;x", false),
            ("x;y&fieldSelector=type%3DOpaque", true),
            // `#` starts no fragment in a request.
            ("x#&fieldSelector=type%3DOpaque", true),
            ("fieldSelector=type%3DOpaque&fieldSelector=type%21%3DOpaque", true),
        ] {
            assert_eq!(excludes(query), expected, "{query}");
        }
        let many = "&".repeat(MAX_PARAMETERS - 1);
        assert!(excludes(&format!("fieldSelector=type%3DOpaque{many}")));
        assert!(!excludes(&format!("fieldSelector=type%3DOpaque{many}&")));
    }

    #[test]
    fn options_are_converted_as_the_apiserver_does() {
        let uri = b"/x?dryRun=&limit=+5&limit=6&continue=%2B&n=1_0&f=fal%C5%BFe&a+b=%41";
        let readings = Readings::of(uri);
        let query = readings.current();
        assert!(query.is_dry_run() && !Readings::of(b"/x?dryrun=All").current().is_dry_run());
        assert_eq!(query.first("continue"), Some(&b"+"[..]));
        assert_eq!(query.first("a b"), Some(&b"A"[..]));
        assert_eq!((query.flag("f"), query.flag("absent")), (Some(false), None));
        assert_eq!(query.all("limit").count(), 2);
    }

    #[test]
    fn asks_for_credentials_in_any_reading() {
        for (query, expected) in [
            ("fieldSelector=type%3Dkubernetes.io%2Fdockercfg", true),
            ("fieldSelector=metadata.namespace%3Da%2Ctype%3D%3Dkubernetes.io%2Fdockercfg", true),
            ("x;fieldSelector=type%3Dkubernetes.io%2Fdockercfg", true),
            ("fieldSelector=type!%3Dkubernetes.io%2Fdockercfg", false),
            ("fieldSelector=&fieldSelector=type%3Dkubernetes.io%2Fdockercfg", false),
        ] {
            let uri = format!("/api/v1/secrets?{query}");
            let readings = Readings::of(uri.as_bytes());
            assert_eq!(readings.may_require_field("type", &CREDENTIALS), expected, "{query}");
        }
    }
}
