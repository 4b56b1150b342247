//! Paths of the kubelet API, and the subresource of `nodes` that each stands for in authorisation.

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Health,
    Pods,
    RunningPods,
    Configz,
    /// A path below `/var/log`.
    NodeLogs(String),
    Logs(Of),
    Exec(Of),
    Attach(Of),
    PortForward(Of),
    Summary,
    Metrics,
    MetricsProbes,
    MetricsResource,
    MetricsCadvisor,
    /// Needs a runtime that can; answered like a path that is not there.
    Checkpoint,
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Of {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

impl Route {
    pub fn parse(path: &str) -> Option<Route> {
        let decode = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let of = |namespace: &str, pod: &str, container: &str| Of {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
        };
        Some(match parts.as_slice() {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Route::Health,
            ["pods"] => Route::Pods,
            ["runningpods"] => Route::RunningPods,
            ["configz"] => Route::Configz,
            ["logs", rest @ ..] => Route::NodeLogs(rest.join("/")),
            ["checkpoint", _, _, _] => Route::Checkpoint,
            ["containerLogs", namespace, pod, container] => Route::Logs(of(namespace, pod, container)),
            ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
                Route::Exec(of(namespace, pod, container))
            }
            ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
                Route::Attach(of(namespace, pod, container))
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                Route::PortForward(of(namespace, pod, ""))
            }
            ["stats"] | ["stats", "summary"] => Route::Summary,
            ["metrics"] => Route::Metrics,
            ["metrics", "probes"] => Route::MetricsProbes,
            ["metrics", "resource"] => Route::MetricsResource,
            ["metrics", "cadvisor"] => Route::MetricsCadvisor,
            _ => return None,
        })
    }

    /// Any of these allows it; the finer ones first.
    pub fn subresources(&self) -> Vec<&'static str> {
        match self {
            Route::Health => vec!["healthz", "proxy"],
            Route::Pods | Route::RunningPods => vec!["pods", "proxy"],
            Route::Configz => vec!["configz", "proxy"],
            Route::NodeLogs(_) => vec!["log"],
            Route::Checkpoint => vec!["checkpoint"],
            Route::Summary => vec!["stats"],
            Route::Metrics | Route::MetricsProbes | Route::MetricsResource | Route::MetricsCadvisor => vec!["metrics"],
            Route::Logs(_) | Route::Exec(_) | Route::Attach(_) | Route::PortForward(_) => vec!["proxy"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let of = |container: &str| Of { namespace: "a".into(), pod: "b".into(), container: container.into() };
        assert_eq!(Route::parse("/exec/a/b/c"), Some(Route::Exec(of("c"))));
        assert_eq!(Route::parse("/exec/a/b/uid/c"), Some(Route::Exec(of("c"))));
        assert_eq!(Route::parse("/portForward/a/b"), Some(Route::PortForward(of(""))));
        assert_eq!(Route::parse("/healthz"), Some(Route::Health));
        assert_eq!(Route::parse("/run/a/b/c"), None);
        assert_eq!(Route::parse("/logs/pods/x.log"), Some(Route::NodeLogs("pods/x.log".into())));
    }

    #[test]
    fn the_finer_right_comes_first() {
        let rights = |path: &str| Route::parse(path).unwrap().subresources().join(" ");
        for (path, wanted) in [
            ("/pods", "pods proxy"),
            ("/runningpods/", "pods proxy"),
            ("/healthz", "healthz proxy"),
            ("/configz", "configz proxy"),
            ("/stats/summary", "stats"),
            ("/metrics/cadvisor", "metrics"),
            ("/logs/", "log"),
            ("/checkpoint/a/b/c", "checkpoint"),
            ("/exec/a/b/c", "proxy"),
        ] {
            assert_eq!(rights(path), wanted, "{path}");
        }
    }
}
