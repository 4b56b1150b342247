//! The way of a request into a server: answers are lost, requests are held up, and a server that was killed neither takes
//! a request nor ends a stream politely.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use admit::User;
use apiserver::Server;
use async_trait::async_trait;
use base::Rng;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use tokio::sync::watch;
use view::{ClientError, ResponseBody, Transport};

use crate::world::{Weather, below, seconds};

/// Longer than any lease lasts: whoever sent it may have been replaced meanwhile.
const HELD_SECONDS: (u64, u64) = (5, 40);
/// A client that gets no connection tries again no sooner.
const REFUSED_AFTER: Duration = Duration::from_millis(20);

/// What can happen on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Good,
    /// Answers are lost.
    Lossy,
    /// And some writes arrive when whoever sent them has given up.
    Late,
}

/// A server's front: open while it lives.
pub struct Door {
    server: watch::Sender<Option<Server>>,
    weather: Weather,
}

struct Caller {
    door: Arc<Door>,
    user: User,
    way: Way,
    rng: Arc<dyn Rng>,
}

/// Reaches whichever of the servers is there, beginning with any of them.
pub struct AnyOf {
    pub servers: Vec<Arc<dyn Transport>>,
    pub rng: Arc<dyn Rng>,
}

/// Nothing was sent: another server may be asked the same.
#[derive(Debug)]
struct NotSent;

// === impl Door ===

impl Door {
    pub fn closed(weather: Weather) -> Arc<Door> {
        Arc::new(Door { server: watch::Sender::new(None), weather })
    }

    pub fn open(&self, server: Server) {
        self.server.send_replace(Some(server));
    }

    pub fn close(&self) {
        self.server.send_replace(None);
    }

    pub fn transport(self: &Arc<Door>, user: User, way: Way, rng: Arc<dyn Rng>) -> Arc<dyn Transport> {
        Arc::new(Caller { door: self.clone(), user, way, rng })
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody listens")
    }
}

impl std::error::Error for NotSent {}

#[async_trait]
impl Transport for Caller {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>, ClientError> {
        let (writes, weather) = (!request.method().is_safe(), self.door.weather);
        let knock = knock(self.door.clone(), self.user.clone(), request);
        if writes && self.way == Way::Late && below(&*self.rng, weather.held_one_in) == 0 {
            let held = seconds(&*self.rng, HELD_SECONDS.0, HELD_SECONDS.1);
            // A task of its own: it arrives also when nobody waits for the answer any more.
            let late = tokio::spawn(async move {
                tokio::time::sleep(held).await;
                knock.await
            });
            return late.await.map_err(ClientError::transport)?;
        }
        let answer = knock.await?;
        if writes && self.way != Way::Good && below(&*self.rng, weather.lost_one_in) == 0 {
            return Err(ClientError::transport("the answer was lost"));
        }
        Ok(answer)
    }
}

async fn knock(door: Arc<Door>, user: User, request: Request<Bytes>) -> Result<Response<ResponseBody>, ClientError> {
    let mut life = door.server.subscribe();
    let Some(server) = life.borrow_and_update().clone() else {
        tokio::time::sleep(REFUSED_AFTER).await;
        return Err(ClientError::transport(NotSent));
    };
    let response = tokio::select! { biased;
        _ = life.changed() => return Err(ClientError::transport("the server was killed")),
        response = server.call(user, request.map(apiserver::full)) => response,
    };
    Ok(response.map(|body| until_the_end(body, life)))
}

/// A body that breaks when the server's life ends.
fn until_the_end(body: apiserver::Body, mut life: watch::Receiver<Option<Server>>) -> ResponseBody {
    let broken = async move {
        let _ = life.changed().await;
    };
    let frames = BodyStream::new(body).take_until(broken);
    StreamBody::new(frames).boxed_unsync()
}

#[async_trait]
impl Transport for AnyOf {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>, ClientError> {
        let count = self.servers.len();
        let first = usize::try_from(below(&*self.rng, count as u64)).expect("a small number");
        for at in first..first + count - 1 {
            match self.servers[at % count].call(request.clone()).await {
                Err(ClientError::Transport { source }) if source.is::<NotSent>() => {}
                other => return other,
            }
        }
        self.servers[(first + count - 1) % count].call(request).await
    }
}
