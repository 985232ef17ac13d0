//! A reference model of how a kube-apiserver reads requests for secrets: small, and independent of the detector's reading.
//!
//! It takes a request as a client sends it and returns the apiserver's view of it ([`RequestInfo`]), the status code, and
//! the objects in the answer. Written after the Kubernetes sources: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`,
//! `.../handlers/{get,delete,patch}.go`, `k8s.io/apimachinery/pkg/fields/selector.go`, Go's `net/url`. What the model leaves
//! open is marked by [`Answer::is_certain`].

use std::collections::BTreeMap;

/// A secret of the model cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret {
    pub namespace: &'static str,
    pub name: &'static str,
    pub kind: &'static str,
    pub data: (&'static str, &'static str),
    pub labels: &'static [(&'static str, &'static str)],
}

impl Secret {
    pub fn is_credential(&self) -> bool {
        self.kind.starts_with("kubernetes.io/docker") || self.data.1 == DOCKER
    }

    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Base64 of a docker configuration with a login.
const DOCKER: &str =
    "eyJhdXRocyI6IHsiZ2hjci5pbyI6IHsidXNlcm5hbWUiOiAiYm90IiwgInBhc3N3b3JkIjogIk1BUktQVyJ9fX0=";

pub const SECRETS: [Secret; 6] = [
    Secret {
        namespace: "production",
        name: "app",
        kind: "Opaque",
        data: ("key", "c2VjcmV0"),
        labels: &[("app", "web")],
    },
    Secret {
        namespace: "production",
        name: "prod-images",
        kind: "kubernetes.io/dockerconfigjson",
        data: (".dockerconfigjson", DOCKER),
        labels: &[("app", "web"), ("tier", "pull")],
    },
    Secret {
        namespace: "production",
        name: "tls",
        kind: "kubernetes.io/tls",
        data: ("tls.key", "c2VjcmV0"),
        labels: &[],
    },
    // A login in a secret of another type, as build tools have it.
    Secret {
        namespace: "staging",
        name: "builder",
        kind: "Opaque",
        data: ("config.json", DOCKER),
        labels: &[("app", "web")],
    },
    Secret {
        namespace: "staging",
        name: "images",
        kind: "kubernetes.io/dockerconfigjson",
        data: (".dockerconfigjson", DOCKER),
        labels: &[("app", "api")],
    },
    Secret {
        namespace: "staging",
        name: "other",
        kind: "Opaque",
        data: ("key", "c2VjcmV0"),
        labels: &[("app", "api")],
    },
];

/// A request as a client sends it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    /// Path and query as they are on the wire.
    pub uri: String,
    pub accept: Accept,
    pub content_type: &'static str,
    pub body: String,
    /// `Upgrade: websocket`.
    pub is_websocket: bool,
    pub is_authorized: bool,
}

/// What the client wants as answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    Json,
    Table,
    PartialMetadata,
}

/// The apiserver's view of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub verb: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
}

/// What a request led to.
#[derive(Clone, Debug)]
pub struct Answer {
    pub info: RequestInfo,
    pub code: u16,
    /// The response does not end until one side closes the connection.
    pub is_long_running: bool,
    /// Secrets whose data the answer contains.
    pub handed_over: Vec<Secret>,
    /// Secrets that are gone now.
    pub deleted: Vec<Secret>,
    /// How the answer is written to the log at level RequestResponse; none for a Status.
    pub form: Option<Form>,
    /// False if the model does not know what the answer contains. Then nothing is expected of the detector.
    pub is_certain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Object,
    List,
    Table { includes_objects: bool },
    PartialMetadata { is_list: bool },
}

/// The first value of each parameter counts. Like `url.ParseQuery`: pairs with a semicolon or a bad escape are dropped.
pub fn parse_query(query: &str) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&') {
        if pair.is_empty() || pair.contains(';') {
            continue;
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (unescape(key, true), unescape(value, true)) {
            values.entry(key).or_default().push(value);
        }
    }
    values
}

/// Percent-decoding of Go: none for a bad escape.
pub fn unescape(text: &str, is_query: bool) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if is_query => out.push(b' '),
            byte => out.push(byte),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// One requirement of a field selector.
struct Requirement {
    field: String,
    is_equal: bool,
    value: String,
}

/// `fields.ParseSelector`: none if it is invalid.
fn parse_field_selector(selector: &str) -> Option<Vec<Requirement>> {
    let mut terms = vec![String::new()];
    let mut letters = selector.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => {
                terms.last_mut()?.push('\\');
                terms.last_mut()?.extend(letters.next());
            }
            ',' => terms.push(String::new()),
            letter => terms.last_mut()?.push(letter),
        }
    }
    terms.sort();
    let mut requirements = Vec::new();
    for term in terms.iter().filter(|term| !term.is_empty()) {
        let (at, operator) = term.char_indices().find_map(|(at, _)| {
            let rest = &term[at..];
            ["!=", "==", "="].into_iter().find(|operator| rest.starts_with(*operator)).map(|one| (at, one))
        })?;
        let mut value = String::new();
        let mut letters = term[at + operator.len()..].chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => value.push(letters.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
                ',' | '=' => return None,
                letter => value.push(letter),
            }
        }
        requirements.push(Requirement { field: term[..at].to_owned(), is_equal: operator != "!=", value });
    }
    Some(requirements)
}

fn field<'s>(secret: &'s Secret, name: &str) -> Option<&'s str> {
    match name {
        "metadata.name" => Some(secret.name),
        "metadata.namespace" => Some(secret.namespace),
        "type" => Some(secret.kind),
        _ => None,
    }
}

/// The label selectors that the generator uses, with what they mean; none for one that the apiserver rejects.
fn matches_labels(secret: &Secret, selector: &str) -> Option<bool> {
    let label = |key: &str| secret.labels.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
    Some(match selector {
        "" => true,
        "app" => label("app").is_some(),
        "!app" => label("app").is_none(),
        "app=web" | "app==web" | " app = web " => label("app") == Some("web"),
        "app!=web" => label("app") != Some("web"),
        "app in (web,api)" => matches!(label("app"), Some("web" | "api")),
        "app notin (web)" => label("app") != Some("web"),
        "app=web,tier!=pull" => label("app") == Some("web") && label("tier") != Some("pull"),
        "app=web,tier" => label("app") == Some("web") && label("tier").is_some(),
        "x=" => false,
        "x!=y" => true,
        _ => return None,
    })
}

/// The options of a list, a watch or a deletecollection; none if the apiserver rejects them.
struct ListOptions {
    fields: Vec<Requirement>,
    labels: String,
    is_watch: bool,
    limit: usize,
    resource_version: String,
    is_streaming_list: bool,
}

fn parse_bool(value: &str) -> bool {
    !value.eq_ignore_ascii_case("false") && value != "0"
}

fn list_options(query: &BTreeMap<String, Vec<String>>) -> Option<ListOptions> {
    let first = |key: &str| query.get(key).and_then(|values| values.first()).map(String::as_str);
    let limit: i64 = match first("limit") {
        Some(limit) => limit.parse().ok()?,
        None => 0,
    };
    let labels = first("labelSelector").unwrap_or_default().to_owned();
    matches_labels(&SECRETS[0], &labels)?;
    Some(ListOptions {
        fields: parse_field_selector(first("fieldSelector").unwrap_or_default())?,
        labels,
        is_watch: first("watch").is_some_and(parse_bool),
        limit: usize::try_from(limit).unwrap_or(0),
        resource_version: first("resourceVersion").unwrap_or_default().to_owned(),
        is_streaming_list: first("sendInitialEvents").is_some_and(parse_bool),
    })
}

/// `RequestInfoFactory.NewRequestInfo`, for the paths below `/api/v1`.
pub fn request_info(request: &Request) -> Option<(RequestInfo, bool)> {
    let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
    let path = unescape(path, false)?;
    let query = parse_query(query);
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if parts.len() < 3 || parts[0] != "api" || parts[1] != "v1" {
        return None;
    }
    parts.drain(..2);
    let mut info = RequestInfo::default();
    let is_watch_path = parts[0] == "watch";
    if is_watch_path {
        parts.remove(0);
        "watch".clone_into(&mut info.verb);
    } else {
        let verb = match request.method {
            "POST" => "create",
            "GET" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "",
        };
        verb.clone_into(&mut info.verb);
    }
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts[1].clone_into(&mut info.namespace);
        parts.drain(..2);
    }
    parts.first().copied().unwrap_or_default().clone_into(&mut info.resource);
    parts.get(1).copied().unwrap_or_default().clone_into(&mut info.name);
    parts.get(2).copied().unwrap_or_default().clone_into(&mut info.subresource);
    if info.name.is_empty() && info.verb == "get" {
        let options = list_options(&query);
        let is_watch = match &options {
            Some(options) => options.is_watch,
            None => {
                query.get("watch").and_then(|values| values.first()).is_some_and(|value| parse_bool(value))
            }
        };
        if is_watch { "watch" } else { "list" }.clone_into(&mut info.verb);
        let fields = options.map(|options| options.fields).unwrap_or_default();
        let exact = fields.iter().find(|one| one.field == "metadata.name" && one.is_equal);
        if let Some(one) = exact.filter(|one| {
            !one.value.is_empty() && one.value != "." && one.value != ".." && !one.value.contains(['/', '%'])
        }) {
            info.name.clone_from(&one.value);
        }
    }
    if info.name.is_empty() && info.verb == "delete" {
        "deletecollection".clone_into(&mut info.verb);
    }
    Some((info, is_watch_path))
}

/// Handles a request in a cluster with these secrets.
pub fn handle(request: &Request, secrets: &[Secret]) -> Option<Answer> {
    let (info, is_watch_path) = request_info(request)?;
    let query = parse_query(request.uri.split_once('?').map_or("", |(_, query)| query));
    let mut answer = Answer {
        is_long_running: info.verb == "watch",
        info,
        code: 200,
        handed_over: Vec::new(),
        deleted: Vec::new(),
        form: None,
        is_certain: true,
    };
    if !request.is_authorized {
        answer.code = 403;
        return Some(answer);
    }
    if is_watch_path && request.method != "GET" {
        answer.code = 405;
        return Some(answer);
    }
    let info = answer.info.clone();
    let found = secrets.iter().find(|one| one.namespace == info.namespace && one.name == info.name).copied();
    let is_named_path = request.uri.split('?').next().is_some_and(|path| {
        let path = unescape(path, false).unwrap_or_default();
        path.trim_matches('/').rsplit('/').next() != Some("secrets")
    });
    if !info.subresource.is_empty() || info.resource != "secrets" {
        answer.code = 404;
        return Some(answer);
    }
    let object_form = match request.accept {
        Accept::Json => Form::Object,
        Accept::Table => Form::Table { includes_objects: includes_objects(&query) },
        Accept::PartialMetadata => Form::PartialMetadata { is_list: false },
    };
    match (info.verb.as_str(), is_named_path) {
        ("get", _) => match found {
            Some(secret) => answer_with(&mut answer, object_form, &[secret]),
            None => answer.code = 404,
        },
        ("list" | "watch" | "deletecollection", named) => {
            collection(request, &query, secrets, named, &mut answer);
        }
        ("patch", true) => {
            let is_valid = dry_run(&query).is_some()
                && (request.content_type != "application/apply-patch+yaml"
                    || query.get("fieldManager").is_some_and(|values| !values[0].is_empty()));
            match found {
                _ if !is_valid => answer.code = 422,
                Some(secret) => answer_with(&mut answer, object_form, &[secret]),
                None => answer.code = 404,
            }
            // A patch could create or change what the model does not follow.
            answer.is_certain = found.is_some();
        }
        ("delete", true) => delete(request, &query, found, object_form, &mut answer),
        ("update" | "create", _) => answer.is_certain = false,
        _ => answer.code = 405,
    }
    Some(answer)
}

fn includes_objects(query: &BTreeMap<String, Vec<String>>) -> bool {
    query.get("includeObject").and_then(|values| values.first()).is_some_and(|value| value == "Object")
}

fn answer_with(answer: &mut Answer, form: Form, secrets: &[Secret]) {
    answer.form = Some(form);
    if matches!(form, Form::Object | Form::List | Form::Table { includes_objects: true }) {
        answer.handed_over = secrets.to_vec();
    }
}

/// Whether a request is a dry run; none if the apiserver rejects the parameter.
fn dry_run(query: &BTreeMap<String, Vec<String>>) -> Option<bool> {
    let values = query.get("dryRun").map(Vec::as_slice).unwrap_or_default();
    values.iter().all(|value| value == "All").then_some(!values.is_empty())
}

fn collection(
    request: &Request,
    query: &BTreeMap<String, Vec<String>>,
    secrets: &[Secret],
    is_named_path: bool,
    answer: &mut Answer,
) {
    let info = answer.info.clone();
    let Some(options) = list_options(query) else {
        answer.code = 400;
        return;
    };
    if options.fields.iter().any(|one| field(&SECRETS[0], &one.field).is_none()) {
        answer.code = 400;
        return;
    }
    let path_name = is_named_path.then_some(info.name.as_str());
    let matches = |secret: &&Secret| {
        (info.namespace.is_empty() || info.namespace == secret.namespace)
            && path_name.is_none_or(|name| name == secret.name)
            && options
                .fields
                .iter()
                .all(|one| (field(secret, &one.field) == Some(&*one.value)) == one.is_equal)
            && matches_labels(secret, &options.labels) == Some(true)
    };
    let mut selected: Vec<Secret> = secrets.iter().filter(matches).copied().collect();
    selected.sort_by_key(Secret::key);
    if info.verb == "watch" {
        answer.code = if request.is_websocket { 101 } else { 200 };
        let from_start = matches!(&*options.resource_version, "" | "0");
        if !from_start || options.is_streaming_list || options.resource_version.parse::<u64>().is_err() {
            answer.is_certain = from_start && !options.is_streaming_list;
        }
        if answer.is_certain {
            let form = match request.accept {
                Accept::Json => Form::Object,
                Accept::Table => Form::Table { includes_objects: includes_objects(query) },
                Accept::PartialMetadata => Form::PartialMetadata { is_list: false },
            };
            answer_with(answer, form, &selected);
        }
        return;
    }
    if options.limit > 0 {
        selected.truncate(options.limit);
    }
    let form = match request.accept {
        Accept::Json => Form::List,
        Accept::Table => Form::Table { includes_objects: includes_objects(query) },
        Accept::PartialMetadata => Form::PartialMetadata { is_list: true },
    };
    if info.verb == "list" {
        if !options.resource_version.is_empty() && options.resource_version.parse::<u64>().is_err() {
            answer.code = 400;
            return;
        }
        answer.is_certain = !options.is_streaming_list;
        answer_with(answer, form, &selected);
        return;
    }
    // A namespace is needed to delete a collection, and its chunks are not modeled.
    if info.namespace.is_empty() {
        answer.code = 405;
        return;
    }
    answer.is_certain = options.limit == 0 && options.resource_version.is_empty();
    match delete_options(request, query) {
        Some(deletion) => {
            answer_with(answer, form, &selected);
            if !deletion.is_dry_run && !deletion.leaves_object {
                answer.deleted = selected;
            }
        }
        None => answer.code = 422,
    }
}

/// How an object is deleted.
struct Deletion {
    is_dry_run: bool,
    /// A finalizer is added: the answer is the object, and it exists until the garbage collector is done.
    leaves_object: bool,
}

/// DeleteOptions come from the body if there is one, otherwise from the query.
fn delete_options(request: &Request, query: &BTreeMap<String, Vec<String>>) -> Option<Deletion> {
    let policy;
    let is_dry_run;
    if request.body.is_empty() {
        is_dry_run = dry_run(query)?;
        policy = query.get("propagationPolicy").and_then(|values| values.first()).cloned();
    } else {
        let body: serde_json::Value = serde_json::from_str(&request.body).ok()?;
        is_dry_run = body["dryRun"].as_array().is_some_and(|values| !values.is_empty());
        policy = body["propagationPolicy"].as_str().map(str::to_owned);
    }
    match policy.as_deref() {
        None | Some("Background") => Some(Deletion { is_dry_run, leaves_object: false }),
        Some("Foreground" | "Orphan") => Some(Deletion { is_dry_run, leaves_object: true }),
        Some(_) => None,
    }
}

fn delete(
    request: &Request,
    query: &BTreeMap<String, Vec<String>>,
    found: Option<Secret>,
    form: Form,
    answer: &mut Answer,
) {
    match (delete_options(request, query), found) {
        (None, _) => answer.code = 422,
        (Some(_), None) => answer.code = 404,
        (Some(deletion), Some(secret)) => {
            if deletion.leaves_object {
                answer_with(answer, form, &[secret]);
            } else if !deletion.is_dry_run {
                answer.deleted = vec![secret];
            }
        }
    }
}
