//! `/containerLogs`: a container's log file, from the first byte or the last lines, and on.

use http::{Response, StatusCode};
use tokio::sync::mpsc;

use super::reply::{Body, status, stream};
use super::route::Of;
use super::{Found, Server};
use crate::logs::{self, Options};
use crate::pod::view::ContainerView;
use crate::spec::names::PodName;

/// Chunks that wait for a client.
const QUEUE_CHUNKS: usize = 4;

/// What a query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    options: Options,
    previous: bool,
}

impl Query {
    fn parse(query: &str, now: jiff::Timestamp) -> Result<Query, String> {
        let mut parsed = Query::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let flag = value.is_empty() || value == "true" || value == "1";
            let number = || value.parse::<i64>().map_err(|_| format!("{name}: invalid value {value:?}"));
            match name.as_ref() {
                "follow" => parsed.options.follow = flag,
                "previous" => parsed.previous = flag,
                "timestamps" => parsed.options.timestamps = flag,
                "tailLines" => {
                    let lines = usize::try_from(number()?).map_err(|_| "tailLines must not be negative".to_owned())?;
                    parsed.options.tail = Some(lines);
                }
                "limitBytes" => {
                    let bytes = usize::try_from(number()?).map_err(|_| "limitBytes must be positive".to_owned())?;
                    parsed.options.limit_bytes = Some(bytes);
                }
                "sinceSeconds" => parsed.options.since = Some(now - jiff::SignedDuration::from_secs(number()?)),
                "sinceTime" => {
                    let time = value.parse().map_err(|_| format!("sinceTime: invalid value {value:?}"))?;
                    parsed.options.since = Some(time);
                }
                "stream" => {
                    parsed.options.stderr = match value.as_ref() {
                        "Stdout" => Some(false),
                        "Stderr" => Some(true),
                        _ => None,
                    };
                }
                _ => {}
            }
        }
        Ok(parsed)
    }
}

impl Server {
    pub(super) async fn logs(&self, of: &Of, query: &str) -> Response<Body> {
        let query = match Query::parse(query, self.context.ports.clock.now()) {
            Ok(query) => query,
            Err(message) => return status(StatusCode::BAD_REQUEST, "BadRequest", &message),
        };
        let found = match self.find(of) {
            Ok(found) => found,
            Err(answer) => return *answer,
        };
        let container = found.view.containers[&found.container].clone();
        let bad = |message: String| status(StatusCode::BAD_REQUEST, "BadRequest", &message);
        let (name, pod) = (&found.container, &of.pod);
        let attempt = match (query.previous, container.attempt) {
            (true, 0) => {
                return bad(format!("previous terminated container {name:?} in pod {pod:?} not found"));
            }
            (true, attempt) => attempt - 1,
            (false, attempt) => attempt,
        };
        if !container.created && !query.previous {
            let waiting = waiting_message(&container);
            return bad(format!("container {name:?} in pod {pod:?} is {waiting}"));
        }
        self.send_log(&found, attempt, query).await
    }

    async fn send_log(&self, found: &Found, attempt: u32, query: Query) -> Response<Body> {
        let pod = PodName::of(&found.view.pod);
        let path = self.context.log_directory(&pod).join(&found.container).join(format!("{attempt}.log"));
        if !path.exists() {
            let message =
                format!("failed to try resolving symlinks in path {:?}: no such file or directory", path.display());
            // A container that was just created has no file yet; one that ended without output never gets one.
            if !query.options.follow {
                return status(StatusCode::NOT_FOUND, "NotFound", &message);
            }
        }
        let (chunks, body) = mpsc::channel(QUEUE_CHUNKS);
        let watch = self.pods.watch(&pod.uid);
        let name = found.container.clone();
        let ended = move || {
            let Some(watch) = &watch else { return true };
            let view = watch.borrow();
            let running = view.containers.get(&name).is_some_and(|now| !now.id.is_empty() && now.attempt == attempt);
            !running || watch.has_changed().is_err()
        };
        tokio::spawn(async move {
            if let Err(error) = logs::follow(path, query.options, chunks, ended).await {
                tracing::debug!(%error, "log was not read to its end");
            }
        });
        stream(body)
    }
}

fn waiting_message(container: &ContainerView) -> String {
    match container.waiting.as_str() {
        "" => "not available".to_owned(),
        "ErrImagePull" | "ImagePullBackOff" => "waiting to start: trying and failing to pull image".to_owned(),
        reason => format!("waiting to start: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let now: jiff::Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let parsed = Query::parse("follow=true&tailLines=5&sinceSeconds=60&previous=false&timestamps", now).unwrap();
        let since = Some("2026-01-01T00:00:00Z".parse().unwrap());
        let options = Options { follow: true, tail: Some(5), since, timestamps: true, ..Options::default() };
        assert_eq!(parsed, Query { options, previous: false });
        assert!(Query::parse("tailLines=x", now).is_err());
        assert!(Query::parse("tailLines=-1", now).is_err());
    }
}
