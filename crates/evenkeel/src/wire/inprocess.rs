//! The in-process transport: a role of this binary calls the server it runs beside, under its own name. Authorised and
//! audited like everybody; only the sockets are saved.

use std::sync::Arc;

use admit::User;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use view::{Client, ClientError, ResponseBody, Transport};

use super::SystemRng;

/// One identity's way into the server.
pub struct InProcess {
    server: apiserver::Server,
    user: User,
}

#[async_trait]
impl Transport for InProcess {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>, ClientError> {
        Ok(self.server.call(self.user.clone(), request.map(apiserver::full)).await)
    }
}

/// A client under `user`, who belongs to no group but the authenticated.
pub fn client(server: &apiserver::Server, user: &str, agent: &str) -> Client {
    let groups = vec!["system:authenticated".into()];
    as_user(server, User { name: user.into(), groups, ..User::default() }, agent)
}

/// A client of the program itself, for what it writes at start.
pub fn administrator(server: &apiserver::Server, agent: &str) -> Client {
    as_user(server, administrator_user(), agent)
}

/// The same way in for requests that no client makes.
pub fn administrator_transport(server: &apiserver::Server) -> InProcess {
    InProcess { server: server.clone(), user: administrator_user() }
}

fn administrator_user() -> User {
    let groups = vec!["system:masters".into(), "system:authenticated".into()];
    User { name: "system:admin".into(), groups, ..User::default() }
}

fn as_user(server: &apiserver::Server, user: User, agent: &str) -> Client {
    let agent = format!("{agent}/{}", env!("CARGO_PKG_VERSION"));
    let transport = InProcess { server: server.clone(), user };
    Client::new(Arc::new(transport), &agent).with_rng(Arc::new(SystemRng))
}
