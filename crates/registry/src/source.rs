//! [`CodeSource`] over any S3-compatible endpoint, by path-style requests.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, Error, GetOptions, ObjectStore as _, ObjectStoreExt as _, RetryConfig};

use crate::registry::{CodeSource, FetchError};

/// A caller waits for the whole fetch, so it does not go on for ever.
const FETCH_WITHIN: Duration = Duration::from_secs(120);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const RETRIES: usize = 2;

/// Where buckets are, and with which key they are read.
#[derive(Clone)]
pub struct S3 {
    /// The AWS endpoint of the configuration, e.g. `http://127.0.0.1:9000`; none: AWS itself.
    pub endpoint: Option<String>,
    /// The region requests are signed for.
    pub region: String,
    /// Access key id and secret; none: unsigned requests.
    pub credentials: Option<(String, String)>,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3").field("endpoint", &self.endpoint).field("region", &self.region).finish_non_exhaustive()
    }
}

impl S3 {
    /// ETag and version of an object, where it has them; none where it is not there.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<Option<(Option<String>, Option<String>)>, FetchError> {
        let store = self.bucket(bucket).map_err(|error| refusal(&error))?;
        let path = Path::parse(key).map_err(|_| no_such_key())?;
        match store.head(&path).await {
            Ok(found) => Ok(Some((found.e_tag, found.version))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(refusal(&error)),
        }
    }

    fn bucket(&self, bucket: &str) -> Result<AmazonS3, Error> {
        let builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&self.region)
            .with_virtual_hosted_style_request(false)
            .with_client_options(
                ClientOptions::new()
                    .with_allow_http(true)
                    .with_timeout(FETCH_WITHIN)
                    .with_connect_timeout(CONNECT_WITHIN),
            )
            .with_retry(RetryConfig { max_retries: RETRIES, retry_timeout: FETCH_WITHIN, ..RetryConfig::default() });
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint),
            None => builder,
        };
        match &self.credentials {
            Some((id, secret)) => builder.with_access_key_id(id).with_secret_access_key(secret).build(),
            None => builder.with_skip_signature(true).build(),
        }
    }
}

#[async_trait]
impl CodeSource for S3 {
    async fn fetch(&self, bucket: &str, key: &str, version: Option<&str>, limit: u64) -> Result<Bytes, FetchError> {
        let store = self.bucket(bucket).map_err(|error| refusal(&error))?;
        let path = Path::parse(key).map_err(|_| no_such_key())?;
        let options = GetOptions { version: version.map(str::to_owned), ..GetOptions::default() };
        let found = store.get_opts(&path, options).await.map_err(|error| refusal(&error))?;
        let mut stream = found.into_stream();
        let mut content = Vec::new();
        // The size an endpoint declares is nothing to rely on.
        while let Some(chunk) = stream.try_next().await.map_err(|error| refusal(&error))? {
            if content.len() as u64 + chunk.len() as u64 > limit {
                let message = format!("The object is larger than {limit} bytes");
                return Err(FetchError { code: "EntityTooLarge".to_owned(), message });
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content.into())
    }
}

fn no_such_key() -> FetchError {
    FetchError { code: "NoSuchKey".to_owned(), message: "The specified key does not exist.".to_owned() }
}

/// What S3 would have said. The library keeps the body of the answer in the text of its error.
fn refusal(error: &Error) -> FetchError {
    let text = chain(error);
    let between = |open: &str, close: &str| Some(text.split_once(open)?.1.split_once(close)?.0.to_owned());
    if let (Some(code), Some(message)) = (between("<Code>", "</Code>"), between("<Message>", "</Message>")) {
        return FetchError { code, message };
    }
    let (code, message) = match error {
        Error::NotFound { .. } => return no_such_key(),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ("AccessDenied", "Access Denied"),
        _ => ("ServiceUnavailable", "The storage endpoint did not answer as it should."),
    };
    tracing::warn!(error = text, "code could not be fetched");
    FetchError { code: code.to_owned(), message: message.to_owned() }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `answer` and gives back what was asked.
    async fn serve(answer: &'static str) -> (S3, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let asked = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            connection.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let credentials = Some(("AKID".to_owned(), "secret".to_owned()));
        (S3 { endpoint, region: "us-east-1".to_owned(), credentials }, asked)
    }

    const FOUND: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\netag: \"e\"\r\n\
                         last-modified: Tue, 01 Sep 2026 00:00:00 GMT\r\n\r\ncode";

    #[tokio::test]
    async fn objects_are_asked_for_by_path_and_signed() {
        let (source, asked) = serve(FOUND).await;
        assert_eq!(source.fetch("bucket", "a/key.zip", Some("v1"), 10).await.unwrap(), "code");
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("GET /bucket/a/key.zip?versionId=v1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("AWS4-HMAC-SHA256 Credential=AKID/"), "{asked}");
    }

    #[tokio::test]
    async fn objects_that_are_too_large_are_refused() {
        let (source, _) = serve(FOUND).await;
        assert_eq!(source.fetch("bucket", "key", None, 3).await.unwrap_err().code, "EntityTooLarge");
    }

    #[tokio::test]
    async fn refusals_are_in_the_words_of_the_endpoint() {
        for (status, code, message) in [
            ("404 Not Found", "NoSuchKey", "The specified key does not exist."),
            ("404 Not Found", "NoSuchBucket", "The specified bucket does not exist"),
            ("403 Forbidden", "AccessDenied", "Access Denied"),
        ] {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let (source, _) = serve(answer.leak()).await;
            let refused = source.fetch("bucket", "key", None, 10).await.unwrap_err();
            assert_eq!(refused, FetchError { code: code.to_owned(), message: message.to_owned() });
        }
    }
}
