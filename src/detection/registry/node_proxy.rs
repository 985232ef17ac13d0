//! Requests to a kubelet's API through `nodes/proxy`.
//!
//! Takes an event of the subresource and returns the path that it asks the kubelet for, and the pod in it, as in
//! `/run/NAMESPACE/POD/CONTAINER`.

use super::{ClusterState, RequestInfo, shown};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::uri;

/// Paths of the kubelet's API that name a pod next: `/exec/NAMESPACE/POD/CONTAINER`.
const POD_PATHS: [&str; 6] = ["run", "exec", "attach", "portForward", "containerLogs", "checkpoint"];

pub(super) fn is_node_proxy(request: &RequestInfo<'_>) -> bool {
    request.resource == "nodes" && request.subresource == "proxy"
}

/// Returns the path that a request asks a kubelet for, decoded, without a slash at its end; none for all but the first event
/// of a request.
pub(crate) fn kubelet_path(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    state: Option<&mut ClusterState>,
) -> Option<String> {
    if !is_node_proxy(request) || state.is_some_and(|state| !state.is_first_of_request(event)) {
        return None;
    }
    Some(shown(path(event)))
}

/// Returns the namespace and the name of the pod in the path.
pub(super) fn pod(event: &mut Event<'_>) -> Option<(String, String)> {
    let path = path(event);
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let is_about_pod = parts.next().is_some_and(|first| POD_PATHS.contains(&first));
    is_about_pod.then(|| Some((parts.next()?.to_owned(), parts.next()?.to_owned())))?
}

/// The path after `/api/v1/nodes/NAME/proxy`. Anything else is returned whole.
fn path(event: &mut Event<'_>) -> String {
    let uri = event.text(Member::RequestUri).unwrap_or_default();
    let path = String::from_utf8_lossy(&uri::decoded_path(&uri)).into_owned();
    let parts: Vec<&str> = path.trim_matches('/').splitn(6, '/').collect();
    match parts[..] {
        ["api", _, "nodes", _, "proxy"] => "/".to_owned(),
        ["api", _, "nodes", _, "proxy", rest] => format!("/{}", rest.trim_end_matches('/')),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str) -> (Option<String>, Option<(String, String)>) {
        let event = format!(
            r#"{{"requestURI":"{uri}","verb":"get","objectRef":{{"resource":"nodes","name":"n","subresource":"proxy"}}}}"#
        );
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        (kubelet_path(&mut event, &request, None), pod(&mut event))
    }

    #[test]
    fn returns_the_path_and_the_pod() {
        let pod = || Some(("prod".to_owned(), "web".to_owned()));
        for (uri, path, expected) in [
            ("/api/v1/nodes/n/proxy/metrics/cadvisor?x=/y", "/metrics/cadvisor", None),
            ("/api/v1/nodes/n/proxy/metrics/", "/metrics", None),
            ("/api/v1/nodes/n/proxy", "/", None),
            ("/api/v1/nodes/https:n:10250/proxy/run/prod/web/c?cmd=id", "/run/prod/web/c", pod()),
            (
                "/api/v1/nodes/n%2Fproxy%2Frun%2Fprod%2Fweb%2Fc/proxy/metrics",
                "/run/prod/web/c/proxy/metrics",
                pod(),
            ),
            ("/api/v1/nodes/n/proxy//exec/prod/web/c", "//exec/prod/web/c", pod()),
            ("/api/v1/nodes/n/proxy/metrics/../run/prod/web/c", "/metrics/../run/prod/web/c", None),
            ("/other", "/other", None),
        ] {
            assert_eq!(of(uri), (Some(path.to_owned()), expected), "{uri}");
        }
    }
}
