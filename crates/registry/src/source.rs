//! [`CodeSource`] over any S3-compatible endpoint, by path-style requests.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore as _};

use crate::registry::{CodeSource, FetchError};

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
    fn bucket(&self, bucket: &str) -> Result<AmazonS3, Error> {
        let builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&self.region)
            .with_virtual_hosted_style_request(false)
            .with_allow_http(true);
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
