//! A path of what the servers change because a person wishes it (authorised by path): by GET how it stands, by POST
//! `?wish=WORD` another one, with the name of who sits there as `&by=`.

use std::fmt::Debug;
use std::sync::OnceLock;

use admit::User;
use apiserver::{Body, Extension, full};
use async_trait::async_trait;
use base::Chain;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::info;
use view::Client;

use super::act::WishError;
use crate::wire::keeper;

/// What is changed.
#[async_trait]
pub trait Wished: Send + Sync + 'static {
    const PATH: &'static str;
    /// What may be wished for, for who wishes something else.
    const WORDS: &'static str;
    type Wish: DeserializeOwned + Debug + Send;
    type Shown: Serialize;

    async fn show(&self, client: &Client) -> anyhow::Result<Self::Shown>;

    async fn grant(&self, wish: Self::Wish, by: &str, client: &Client) -> Result<(), WishError>;
}

/// The server's side.
pub struct WishPath<T> {
    of: T,
    /// Given once the API server is there that it asks.
    pub client: OnceLock<Client>,
}

// === impl WishPath ===

impl<T: Wished> WishPath<T> {
    pub fn new(of: T) -> WishPath<T> {
        WishPath { of, client: OnceLock::new() }
    }

    async fn respond(&self, user: &User, query: Option<&str>) -> Response<Body> {
        let Some(client) = self.client.get() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "this server has just been started; ask again".to_owned());
        };
        if let Some(query) = query {
            let parts = keeper::query(Some(query));
            let part = |name: &str| parts.get(name).copied().unwrap_or_default();
            let (word, by) = (part("wish"), part("by"));
            let Ok(wish) = serde_json::from_value::<T::Wish>(word.into()) else {
                return text(StatusCode::BAD_REQUEST, format!("?wish={}", T::WORDS));
            };
            info!(user = %user.name, by, ?wish, path = T::PATH, "asked");
            if let Err(error) = self.of.grant(wish, &format!("{by} ({})", user.name), client).await {
                return text(error.code(), error.to_string());
            }
        }
        match self.of.show(client).await {
            Ok(shown) => {
                let mut response = text(StatusCode::OK, serde_json::to_string(&shown).expect("it is plain data"));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(failure) => text(StatusCode::SERVICE_UNAVAILABLE, Chain(failure.as_ref()).to_string()),
        }
    }
}

#[async_trait]
impl<T: Wished> Extension for WishPath<T> {
    fn is_open(&self, _: &str) -> bool {
        false
    }

    fn serves(&self, path: &str) -> bool {
        path == T::PATH
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        let (parts, _) = request.into_parts();
        match (user, parts.method.as_str()) {
            (Some(user), "GET") => self.respond(&user, None).await,
            (Some(user), "POST") => self.respond(&user, Some(parts.uri.query().unwrap_or_default())).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned()),
        }
    }
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
