//! Several sets of paths beside the API as one: the first that serves a path answers.

use std::sync::Arc;

use admit::User;
use apiserver::{Body, Extension, NoExtension};
use async_trait::async_trait;
use http::{Request, Response};

/// In the order they are asked.
pub struct Extensions(pub Vec<Arc<dyn Extension>>);

// === impl Extensions ===

impl Extensions {
    fn of(&self, path: &str) -> Option<&Arc<dyn Extension>> {
        self.0.iter().find(|one| one.is_open(path) || one.serves(path))
    }
}

#[async_trait]
impl Extension for Extensions {
    fn is_open(&self, path: &str) -> bool {
        self.of(path).is_some_and(|one| one.is_open(path))
    }

    fn serves(&self, path: &str) -> bool {
        self.of(path).is_some_and(|one| one.serves(path))
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        match self.of(request.uri().path()) {
            Some(one) => one.answer(user, request).await,
            None => NoExtension.answer(user, request).await,
        }
    }
}
