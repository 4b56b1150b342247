//! A store that speaks S3, over TLS: of the internet, or of one's own rack.
//!
//! `https://ENDPOINT/BUCKET/PREFIX`. The credentials are read again at each use, so that replaced ones are taken without a
//! restart; they come from a file or the environment, never from a command line, which others can read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use rusty_s3::actions::S3Action;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use url::Url;
use view::{Endpoint, Https, Transport};

use super::Target;
use crate::pki::client_config;

/// How long a signed request is good for. Clocks of others may differ by minutes.
const SIGNED_FOR: Duration = Duration::from_secs(900);
/// A store that does not answer for so long does not take the backup.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Before the one other try of a request whose connection broke.
const AGAIN: Duration = Duration::from_secs(1);
/// One PUT takes no more, by the protocol.
const OBJECT_BYTES_MAX: usize = 5 << 30;
/// Pages of a listing, of a thousand names each.
const PAGES_MAX: usize = 100;
/// An error's document.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Trusted where no other authority is named.
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What stores outside AWS call their region when nobody named one.
const REGION: &str = "us-east-1";

/// Where, and with what.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    pub url: String,
    pub credentials: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

/// A prefix of a bucket.
pub struct S3 {
    options: S3Options,
    endpoint: Url,
    bucket: String,
    prefix: String,
    https: Https,
}

/// Keys of an account, and the region they are used in.
struct Account {
    credentials: Credentials,
    region: String,
}

// === impl S3 ===

impl S3 {
    pub fn new(options: S3Options) -> Result<S3> {
        let url: Url = options.url.parse().with_context(|| format!("{:?} is no address", options.url))?;
        ensure!(url.scheme() == "https", "{url}: a backup travels over https only");
        ensure!(url.username().is_empty() && url.password().is_none(), "credentials come from a file, not the address");
        let host = url.host_str().context("the address names no host")?.to_owned();
        let mut parts = url.path().trim_matches('/').splitn(2, '/');
        let bucket = parts.next().filter(|name| !name.is_empty());
        let bucket =
            bucket.with_context(|| format!("{url} names no bucket: https://ENDPOINT/BUCKET/PREFIX"))?.to_owned();
        let prefix = parts.next().map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let ca = options.ca.clone().unwrap_or_else(|| SYSTEM_CAS.into());
        let pem = std::fs::read_to_string(&ca).with_context(|| format!("read the trusted CAs {}", ca.display()))?;
        let tls = client_config(&pem, None, false).with_context(|| ca.display().to_string())?;
        let https = Https::new(Endpoint::new(&host, url.port().unwrap_or(443)), Arc::new(move || tls.clone()));
        let mut endpoint = url.clone();
        endpoint.set_path("/");
        Ok(S3 { options, endpoint, bucket, prefix, https })
    }

    fn account(&self) -> Result<(Bucket, Credentials)> {
        let account = Account::read(self.options.credentials.as_deref())?;
        let bucket = Bucket::new(self.endpoint.clone(), UrlStyle::Path, self.bucket.clone(), account.region)?;
        Ok((bucket, account.credentials))
    }

    fn key(&self, file: &str) -> String {
        format!("{}{file}", self.prefix)
    }

    /// Sends a signed request; what is not a success is an error with the store's own code. Every request here may be
    /// repeated, so that one broken connection is no failed backup.
    async fn send(&self, method: Method, url: &Url, body: Vec<u8>) -> Result<Vec<u8>> {
        let body = Bytes::from(body);
        let first = self.exchange(&method, url, body.clone()).await;
        let answer = match first {
            Ok(Err(_)) => {
                tokio::time::sleep(AGAIN).await;
                self.exchange(&method, url, body).await
            }
            first => first,
        };
        let (status, body) = answer?.with_context(|| format!("reach {}", self.endpoint))?;
        if !status.is_success() {
            return Err(refusal(status, &String::from_utf8_lossy(&body)));
        }
        Ok(body.to_vec())
    }

    /// One request and its answer; the inner error is a connection's.
    async fn exchange(
        &self,
        method: &Method,
        url: &Url,
        body: Bytes,
    ) -> Result<Result<(StatusCode, Bytes), view::ClientError>> {
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let request = Request::builder().method(method).uri(target).header("content-length", body.len()).body(body)?;
        let answer = async {
            let response = self.https.call(request).await?;
            let (status, limit) = (response.status(), OBJECT_BYTES_MAX);
            let limit = if status.is_success() { limit } else { ERROR_BYTES_MAX };
            Ok::<_, view::ClientError>((status, view::read_body(response.into_body(), limit).await?))
        };
        tokio::time::timeout(REQUEST_TIMEOUT, answer)
            .await
            .map_err(|_| anyhow!("{} gave no answer within {} s", self.endpoint, REQUEST_TIMEOUT.as_secs()))
    }
}

/// Names and sizes on one page. Stores put these elements into name spaces of their own, so that none is asked for. What
/// comes before the last slash of a key is the prefix that was asked for; our names have no characters that are escaped.
fn listed(page: &str) -> Option<Vec<(String, u64)>> {
    let (_, inside) = page.split_once("<ListBucketResult")?;
    let one = |content: &str| {
        let key = element(content, "Key")?;
        let name = key.rsplit(['/']).next().and_then(|name| name.rsplit("%2F").next())?;
        Some((name.to_owned(), element(content, "Size")?.parse().ok()?))
    };
    inside.split("<Contents>").skip(1).map(one).collect()
}

/// The text of the first element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// What a store says with an error: `403 Forbidden (SignatureDoesNotMatch)`.
fn refusal(status: StatusCode, body: &str) -> anyhow::Error {
    match element(body, "Code") {
        Some(code) => anyhow!("the store answered {status} ({code})"),
        None => anyhow!("the store answered {status}"),
    }
}

#[async_trait]
impl Target for S3 {
    fn name(&self) -> String {
        self.options.url.clone()
    }

    fn kind(&self) -> &'static str {
        "s3"
    }

    fn is_offsite(&self) -> bool {
        true
    }

    async fn list(&self) -> Result<BTreeMap<String, u64>> {
        let (bucket, credentials) = self.account()?;
        let (mut files, mut more) = (BTreeMap::new(), None);
        for _ in 0..PAGES_MAX {
            let mut action = bucket.list_objects_v2(Some(&credentials));
            action.with_prefix(self.prefix.clone());
            if let Some(token) = more.take() {
                action.with_continuation_token(token);
            }
            let page = self.send(Method::GET, &action.sign(SIGNED_FOR), Vec::new()).await?;
            let page = String::from_utf8_lossy(&page);
            files.extend(listed(&page).context("the store's listing is not one")?);
            more = element(&page, "NextContinuationToken").map(|token| token.replace("&amp;", "&"));
            if more.is_none() {
                return Ok(files);
            }
        }
        bail!("the bucket holds more than {PAGES_MAX} pages of names: give backups a prefix of their own")
    }

    async fn put(&self, file: &str, content: &[u8]) -> Result<()> {
        ensure!(content.len() <= OBJECT_BYTES_MAX, "{file} is larger than an object of S3 can be in one piece");
        let (bucket, credentials) = self.account()?;
        let url = bucket.put_object(Some(&credentials), &self.key(file)).sign(SIGNED_FOR);
        self.send(Method::PUT, &url, content.to_vec()).await.map(drop)
    }

    async fn get(&self, file: &str) -> Result<Vec<u8>> {
        let (bucket, credentials) = self.account()?;
        let url = bucket.get_object(Some(&credentials), &self.key(file)).sign(SIGNED_FOR);
        self.send(Method::GET, &url, Vec::new()).await
    }

    async fn remove(&self, file: &str) -> Result<()> {
        let (bucket, credentials) = self.account()?;
        let url = bucket.delete_object(Some(&credentials), &self.key(file)).sign(SIGNED_FOR);
        self.send(Method::DELETE, &url, Vec::new()).await.map(drop)
    }
}

// === impl Account ===

impl Account {
    /// From a file as the AWS tools keep it, or from the variables that they read.
    fn read(file: Option<&Path>) -> Result<Account> {
        let Some(path) = file else {
            let variable = |name: &str| std::env::var(name).ok();
            return Account::of(variable)
                .context("no --backup-s3-credentials and no AWS_ACCESS_KEY_ID in the environment");
        };
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let value = |name: &str| {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            let mut found = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.trim().to_owned())
        };
        Account::of(value)
            .with_context(|| format!("{} lacks aws_access_key_id or aws_secret_access_key", path.display()))
    }

    fn of(value: impl Fn(&str) -> Option<String>) -> Option<Account> {
        let (key, secret) = (value("AWS_ACCESS_KEY_ID")?, value("AWS_SECRET_ACCESS_KEY")?);
        let credentials = match value("AWS_SESSION_TOKEN") {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        };
        let region = value("AWS_REGION").or_else(|| value("REGION")).unwrap_or_else(|| REGION.to_owned());
        Some(Account { credentials, region })
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, S3, S3Options, listed, refusal};
    use http::StatusCode;

    fn target(url: &str) -> anyhow::Result<S3> {
        let folder = tempfile::tempdir()?;
        let ca = folder.path().join("ca.crt");
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(&ca, rcgen::CertificateParams::default().self_signed(&key)?.pem())?;
        S3::new(S3Options { url: url.to_owned(), credentials: None, ca: Some(ca) })
    }

    #[test]
    fn an_address_names_bucket_and_prefix_over_tls() {
        let one = target("https://s3.example.org/shop/clusters/a/").unwrap();
        assert_eq!((one.bucket.as_str(), one.key("x").as_str()), ("shop", "clusters/a/x"));
        assert_eq!(target("https://s3.example.org/shop").unwrap().key("x"), "x");
        let told = |url| format!("{:#}", target(url).err().unwrap());
        assert!(told("http://s3.example.org/shop").contains("https only"));
        assert!(told("https://s3.example.org/").contains("names no bucket"));
        assert!(told("https://me:word@s3.example.org/shop").contains("come from a file"));
    }

    #[test]
    fn credentials_are_read_as_the_tools_of_aws_write_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        std::fs::write(&file, "[default]\naws_access_key_id = AK\naws_secret_access_key=SK\nregion=eu-1\n").unwrap();
        let account = Account::read(Some(&file)).unwrap();
        assert_eq!((account.credentials.key(), account.credentials.secret()), ("AK", "SK"));
        assert_eq!(account.region, "eu-1");
        std::fs::write(&file, "[default]\n").unwrap();
        assert!(Account::read(Some(&file)).is_err());
    }

    #[test]
    fn a_page_is_read_whatever_its_name_space() {
        let object = |key: &str| format!("<Contents><Key>{key}</Key><ETag>x</ETag><Size>7</Size></Contents>");
        let page =
            format!("<ListBucketResult xmlns=\"any\"><Name>b</Name>{}{}", object("a/b/one"), object("a%2Fb%2Ftwo"));
        assert_eq!(listed(&page).unwrap(), [("one".to_owned(), 7), ("two".to_owned(), 7)]);
        assert_eq!(listed("<ListBucketResult/>").unwrap(), []);
        assert!(listed("<html>").is_none() && listed("<ListBucketResult><Contents><Key>a</Key>").is_none());
    }

    #[test]
    fn the_stores_own_code_is_told() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code></Error>";
        let said = refusal(StatusCode::FORBIDDEN, body).to_string();
        assert_eq!(said, "the store answered 403 Forbidden (SignatureDoesNotMatch)");
    }
}
