//! Requests to the API by resource and key, under the identity of the transport.

use std::sync::Arc;
use std::time::Duration;

use api::term::TERM_HEADER;
use api::{Gvr, Key, PatchType, Term, Tree};
use base::{Revision, Rng, SeededRng};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::status_of;
use crate::{ClientError, Form, ListPage, ResponseBody, Transport, read_body};

/// Longest a request other than a watch may take. A little above the API server's own 30 s for mutating requests with
/// webhooks, so that its answer is the one that is seen.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(34);
/// Largest answer that is read whole.
pub const RESPONSE_BYTES_MAX: usize = 64 << 20;

const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// In a path the colon of RBAC names needs no escape.
const NAME: &AsciiSet = &QUERY.remove(b':');

/// Asks the API. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    rng: Arc<dyn Rng>,
    user_agent: Arc<str>,
    timeout: Duration,
    /// In every write: the term in which it holds.
    term: Option<HeaderValue>,
}

/// What part of a collection, and from when.
#[derive(Clone, Debug, Default)]
pub struct ListOptions<'a> {
    pub namespace: Option<&'a str>,
    pub label_selector: Option<&'a str>,
    pub field_selector: Option<&'a str>,
    pub limit: Option<usize>,
    pub more: Option<&'a str>,
    pub form: Form,
}

/// A patch and where it goes.
#[derive(Clone, Debug)]
pub struct PatchRequest<'a> {
    pub gvr: &'a Gvr,
    pub key: &'a Key,
    pub subresource: Option<&'a str>,
    pub patch: PatchType,
    pub body: &'a Tree,
}

/// A query string under construction.
#[derive(Default)]
pub(crate) struct Query(String);

// === impl Query ===

impl Query {
    pub(crate) fn add(&mut self, name: &str, value: &str) -> &mut Query {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, QUERY));
        self
    }

    fn selectors(&mut self, options: &ListOptions<'_>) -> &mut Query {
        for (name, value) in [("labelSelector", options.label_selector), ("fieldSelector", options.field_selector)] {
            if let Some(value) = value {
                self.add(name, value);
            }
        }
        self
    }
}

// === impl Client ===

impl Client {
    /// `user_agent` reads `name/version`; the name is also the field manager of applied patches. Jitter comes from a
    /// sequence seeded by it; [`Client::with_rng`] gives the real thing.
    pub fn new(transport: Arc<dyn Transport>, user_agent: &str) -> Client {
        let seed = user_agent
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Client {
            transport,
            rng: Arc::new(SeededRng::new(seed)),
            user_agent: user_agent.into(),
            timeout: REQUEST_TIMEOUT,
            term: None,
        }
    }

    #[must_use]
    pub fn with_rng(mut self, rng: Arc<dyn Rng>) -> Client {
        self.rng = rng;
        self
    }

    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        self.timeout = timeout;
        self
    }

    /// The same connection under another user agent: one per loop, so that managed fields tell them apart.
    #[must_use]
    pub fn named(&self, user_agent: &str) -> Client {
        Client { user_agent: user_agent.into(), ..self.clone() }
    }

    /// The same connection for writes that shall not happen once this term is over.
    ///
    /// # Panics
    /// When the holder's name cannot be in a request's head.
    #[must_use]
    pub fn in_term(&self, term: &Term) -> Client {
        let term = HeaderValue::from_str(&term.to_string()).expect("holders of leases are named after hosts");
        Client { term: Some(term), ..self.clone() }
    }

    pub fn rng(&self) -> &dyn Rng {
        &*self.rng
    }

    /// The part of the user agent before the slash.
    pub fn field_manager(&self) -> &str {
        self.user_agent.split('/').next().unwrap_or_default()
    }

    pub async fn get(&self, gvr: &Gvr, key: &Key) -> Result<Tree, ClientError> {
        let body = self.whole(Method::GET, &object_path(gvr, key, None), None, Bytes::new()).await?;
        parse(&body)
    }

    pub async fn list(&self, gvr: &Gvr, options: &ListOptions<'_>) -> Result<ListPage, ClientError> {
        let mut query = Query::default();
        query.selectors(options);
        if let Some(limit) = options.limit {
            query.add("limit", &limit.to_string());
        }
        if let Some(more) = options.more {
            query.add("continue", more);
        }
        let path = gvr.path(options.namespace, None) + &query.0;
        let mut request = self.request(Method::GET, &path, None, Bytes::new());
        if options.form == Form::Metadata {
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(METADATA_LIST));
        }
        ListPage::parse(&self.exchange(request).await?)
    }

    /// Opens a watch with bookmarks after `from`. The server ends it after `timeout`; reading its body is the caller's.
    pub async fn watch(
        &self,
        gvr: &Gvr,
        options: &ListOptions<'_>,
        from: Revision,
        timeout: Duration,
    ) -> Result<ResponseBody, ClientError> {
        let mut query = Query::default();
        query.add("watch", "true").add("allowWatchBookmarks", "true").add("resourceVersion", &from.to_string());
        query.add("timeoutSeconds", &timeout.as_secs().to_string()).selectors(options);
        let path = gvr.path(options.namespace, None) + &query.0;
        let mut request = self.request(Method::GET, &path, None, Bytes::new());
        if options.form == Form::Metadata {
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(METADATA));
        }
        let response = self.answered(self.transport.call(request)).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let code = response.status().as_u16();
        let body = self.answered(read_body(response.into_body(), RESPONSE_BYTES_MAX)).await?;
        Err(ClientError::Status(status_of(code, &body)))
    }

    pub async fn create(&self, gvr: &Gvr, namespace: &str, object: &Tree) -> Result<Tree, ClientError> {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        self.send(Method::POST, &gvr.path(namespace, None), "application/json", object).await
    }

    pub async fn update(
        &self,
        gvr: &Gvr,
        key: &Key,
        subresource: Option<&str>,
        object: &Tree,
    ) -> Result<Tree, ClientError> {
        self.send(Method::PUT, &object_path(gvr, key, subresource), "application/json", object).await
    }

    pub async fn patch(&self, patch: &PatchRequest<'_>) -> Result<Tree, ClientError> {
        let mut query = Query::default();
        if let PatchType::Apply { force } = patch.patch {
            query.add("fieldManager", self.field_manager());
            query.add("force", if force { "true" } else { "false" });
        }
        let path = object_path(patch.gvr, patch.key, patch.subresource) + &query.0;
        self.send(Method::PATCH, &path, patch.patch.media_type(), patch.body).await
    }

    /// `options` is a `DeleteOptions` object.
    pub async fn delete(&self, gvr: &Gvr, key: &Key, options: &Tree) -> Result<Tree, ClientError> {
        self.send(Method::DELETE, &object_path(gvr, key, None), "application/json", options).await
    }

    /// POSTs a body to a subresource: `binding`, `eviction`, `token`.
    pub async fn post(&self, gvr: &Gvr, key: &Key, subresource: &str, body: &Tree) -> Result<Tree, ClientError> {
        self.send(Method::POST, &object_path(gvr, key, Some(subresource)), "application/json", body).await
    }

    /// A GET of any path, body as it is: `/readyz`, `/version`.
    pub async fn raw(&self, path: &str) -> Result<Bytes, ClientError> {
        self.whole(Method::GET, path, None, Bytes::new()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &'static str,
        body: &Tree,
    ) -> Result<Tree, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::decode)?;
        parse(&self.whole(method, path, Some(media_type), body.into()).await?)
    }

    async fn whole(
        &self,
        method: Method,
        path: &str,
        media_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        self.exchange(self.request(method, path, media_type, body)).await
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Bytes, ClientError> {
        let exchange = async {
            let response = self.transport.call(request).await?;
            let status = response.status();
            let body = read_body(response.into_body(), RESPONSE_BYTES_MAX).await?;
            if status.is_success() { Ok(body) } else { Err(ClientError::Status(status_of(status.as_u16(), &body))) }
        };
        self.answered(exchange).await
    }

    async fn answered<T>(&self, exchange: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::Timeout(self.timeout)),
        }
    }

    fn request(&self, method: Method, path: &str, media_type: Option<&'static str>, body: Bytes) -> Request<Bytes> {
        let term = self.term.clone().filter(|_| !method.is_safe());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, &*self.user_agent);
        if let Some(media_type) = media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        if let Some(term) = term {
            request = request.header(TERM_HEADER, term);
        }
        request.body(body).expect("names of objects and our own user agents are valid in a request's head")
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.user_agent)
    }
}

fn object_path(gvr: &Gvr, key: &Key, subresource: Option<&str>) -> String {
    let namespace = Some(key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    // RBAC and custom objects may have names that a URL must escape.
    let name: String = utf8_percent_encode(&key.name, NAME).collect();
    let mut path = gvr.path(namespace, Some(&name));
    if let Some(subresource) = subresource {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

fn parse(body: &[u8]) -> Result<Tree, ClientError> {
    serde_json::from_slice(body).map_err(ClientError::decode)
}
