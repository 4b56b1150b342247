//! Container events: CRI's own where the runtime has them, else containerd's, translated.
//!
//! containerd offers CRI events from 1.7 on. Its own event service is on the same socket in every version; it tells of
//! an exit a moment before CRI does, so an exit is held back until CRI agrees: who lists on an event must not see the
//! state from before it.

use std::pin::Pin;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;
use tonic::Streaming;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use super::v1::ContainerEventType as Kind;
use super::{Cri, CriError, v1};

const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";
const FILTERS: [&str; 2] = [
    r#"namespace==k8s.io,topic~="^/tasks/(start|exit)$""#,
    r#"namespace==k8s.io,topic~="^/containers/(create|delete)$""#,
];
/// How long a refusal of the whole stream is waited for.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest time CRI may lag behind an exit; then the event is passed on all the same.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
const SETTLE_INTERVAL: Duration = Duration::from_millis(10);

pub type Events = BoxStream<'static, Result<v1::ContainerEventResponse, CriError>>;

impl Cri {
    /// Container and sandbox events as they happen; ends when the connection does. Events translated from containerd
    /// carry no sandbox status. [`CriError::Unsupported`] where there are neither: poll lists then.
    pub async fn events(&self) -> Result<Events, CriError> {
        let mut client = self.runtime.clone();
        let own = async move { client.get_container_events(v1::GetEventsRequest {}).await }.boxed();
        match open(own).await {
            Err(CriError::Unsupported { .. }) => {
                let envelopes = open(self.subscribe().boxed()).await?;
                Ok(stream::unfold((envelopes, self.clone()), next).boxed())
            }
            opened => opened,
        }
    }

    fn subscribe(
        &self,
    ) -> impl Future<Output = Result<tonic::Response<Streaming<Envelope>>, tonic::Status>> + Send + use<> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let request = Subscription { filters: FILTERS.map(String::from).to_vec() };
        async move {
            client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<Subscription, Envelope>::default();
            client.server_streaming(tonic::Request::new(request), PathAndQuery::from_static(SUBSCRIBE), codec).await
        }
    }

    /// Waits until CRI no longer calls this container or sandbox running.
    async fn settled(&self, id: &str) {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while Instant::now() < deadline && self.seems_running(id).await {
            tokio::time::sleep(SETTLE_INTERVAL).await;
        }
    }

    async fn seems_running(&self, id: &str) -> bool {
        match self.container_status(id, false).await {
            Ok((status, _)) => status.state() == v1::ContainerState::ContainerRunning,
            Err(error) if error.is_not_found() => match self.sandbox_status(id, false).await {
                Ok(reply) => reply.status.is_some_and(|s| s.state() == v1::PodSandboxState::SandboxReady),
                Err(_) => false,
            },
            Err(_) => false,
        }
    }
}

type Items<T> = BoxStream<'static, Result<T, CriError>>;

/// Makes a stream of a call whose reply may not begin before the first event: a server that has nothing to say yet does
/// not even send headers. A refusal comes at once.
async fn open<T: Send + 'static>(
    mut reply: BoxFuture<'static, Result<tonic::Response<Streaming<T>>, tonic::Status>>,
) -> Result<Items<T>, CriError> {
    let refused = |status| CriError::new("events", status);
    match tokio::time::timeout(REFUSAL_TIMEOUT, &mut reply).await {
        Ok(Ok(response)) => {
            let mut items = response.into_inner().peekable();
            // Some servers accept first and refuse in the trailers.
            let first = tokio::time::timeout(REFUSAL_TIMEOUT, Pin::new(&mut items).peek()).await;
            match first {
                Ok(Some(Err(status))) => Err(refused(status.clone())),
                _ => Ok(items.map(move |item| item.map_err(refused)).boxed()),
            }
        }
        Ok(Err(status)) => Err(refused(status)),
        Err(_) => {
            let items = stream::once(reply).map(|reply| match reply {
                Ok(response) => response.into_inner().boxed(),
                Err(status) => stream::iter([Err(status)]).boxed(),
            });
            Ok(items.flatten().map(move |item| item.map_err(refused)).boxed())
        }
    }
}

type Source = (Items<Envelope>, Cri);

async fn next((mut stream, cri): Source) -> Option<(Result<v1::ContainerEventResponse, CriError>, Source)> {
    loop {
        let envelope = match stream.next().await? {
            Ok(envelope) => envelope,
            Err(error) => return Some((Err(error), (stream, cri))),
        };
        let Some((kind, container_id)) = translate(&envelope) else { continue };
        if kind == Kind::ContainerStoppedEvent {
            cri.settled(&container_id).await;
        }
        let event = v1::ContainerEventResponse {
            container_id,
            container_event_type: kind.into(),
            ..v1::ContainerEventResponse::default()
        };
        return Some((Ok(event), (stream, cri)));
    }
}

/// The kind of event and the container; None for the ends of commands run inside a container.
fn translate(envelope: &Envelope) -> Option<(Kind, String)> {
    let value = envelope.event.as_ref()?.value.as_slice();
    let names = <Names as prost::Message>::decode(value);
    match envelope.topic.as_str() {
        "/tasks/exit" => {
            let names = names.ok()?;
            (names.container == names.task).then_some((Kind::ContainerStoppedEvent, names.container))
        }
        "/tasks/start" => Some((Kind::ContainerStartedEvent, first(value)?)),
        "/containers/create" => Some((Kind::ContainerCreatedEvent, first(value)?)),
        "/containers/delete" => Some((Kind::ContainerDeletedEvent, first(value)?)),
        _ => None,
    }
}

fn first(value: &[u8]) -> Option<String> {
    <Name as prost::Message>::decode(value).ok().map(|name| name.container)
}

// === containerd's event messages, as far as they are read ===

#[derive(Clone, PartialEq, prost::Message)]
struct Subscription {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// What the events about one container begin with.
#[derive(Clone, PartialEq, prost::Message)]
struct Name {
    #[prost(string, tag = "1")]
    container: String,
}

/// An exit names the container and which of its tasks ended.
#[derive(Clone, PartialEq, prost::Message)]
struct Names {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, tag = "2")]
    task: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    fn envelope(topic: &str, value: Vec<u8>) -> Envelope {
        Envelope { topic: topic.into(), event: Some(Any { type_url: String::new(), value }) }
    }

    #[test]
    fn an_exec_that_ends_is_no_exit() {
        let exit = |task: &str| Names { container: "c".into(), task: task.into() }.encode_to_vec();
        let own = translate(&envelope("/tasks/exit", exit("c")));
        assert_eq!(own, Some((Kind::ContainerStoppedEvent, "c".into())));
        assert_eq!(translate(&envelope("/tasks/exit", exit("exec-1"))), None);
        assert_eq!(translate(&envelope("/images/create", Vec::new())), None);
    }
}
