//! Code packages from an S3-compatible endpoint.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use lambent_registry::{CodeSource, FetchError};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore};

use crate::config::{Aws, Env};

/// What S3 calls are made with.
pub struct S3 {
    settings: Option<Settings>,
}

struct Settings {
    endpoint: String,
    region: String,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
}

impl S3 {
    /// A source at the endpoint of `aws`; without one every fetch says what to configure.
    pub fn new(aws: &Aws, region: &str, env: &dyn Env) -> Self {
        let settings = aws.endpoint.clone().map(|endpoint| Settings {
            endpoint,
            region: region.to_owned(),
            access_key_id: aws.access_key_id.clone().or_else(|| env.get("AWS_ACCESS_KEY_ID")),
            secret_access_key: aws.secret_access_key.clone().or_else(|| env.get("AWS_SECRET_ACCESS_KEY")),
        });
        Self { settings }
    }

    fn bucket(&self, bucket: &str) -> Result<Arc<dyn ObjectStore>, FetchError> {
        let Some(settings) = &self.settings else {
            return Err(FetchError {
                code: "EndpointNotConfigured".to_owned(),
                message: "this node knows no S3 endpoint; set aws.endpoint or start it with --aws-endpoint".to_owned(),
            });
        };
        let mut builder = AmazonS3Builder::new()
            .with_endpoint(&settings.endpoint)
            .with_region(&settings.region)
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(false)
            .with_allow_http(true);
        match (&settings.access_key_id, &settings.secret_access_key) {
            (Some(id), Some(secret)) => builder = builder.with_access_key_id(id).with_secret_access_key(secret),
            _ => builder = builder.with_skip_signature(true),
        }
        builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>).map_err(|error| failed(&error))
    }
}

#[async_trait]
impl CodeSource for S3 {
    async fn fetch(&self, bucket: &str, key: &str, version: Option<&str>, limit: u64) -> Result<Bytes, FetchError> {
        let store = self.bucket(bucket)?;
        let path = Path::parse(key)
            .map_err(|error| FetchError { code: "NoSuchKey".to_owned(), message: error.to_string() })?;
        let options = GetOptions { version: version.map(str::to_owned), ..GetOptions::default() };
        let object = store.get_opts(&path, options).await.map_err(|error| failed(&error))?;
        let too_large = || FetchError {
            code: "EntityTooLarge".to_owned(),
            message: format!("The object is larger than {limit} bytes"),
        };
        if object.meta.size > limit {
            return Err(too_large());
        }
        let mut content = BytesMut::new();
        let mut stream = object.into_stream();
        while let Some(chunk) = stream.next().await {
            content.extend_from_slice(&chunk.map_err(|error| failed(&error))?);
            if content.len() as u64 > limit {
                return Err(too_large());
            }
        }
        Ok(content.freeze())
    }
}

/// S3's code where the library keeps it apart, else its text.
fn failed(error: &object_store::Error) -> FetchError {
    use object_store::Error;
    let (code, message) = match error {
        Error::NotFound { .. } => ("NoSuchKey", "The specified key does not exist.".to_owned()),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ("AccessDenied", "Access Denied".to_owned()),
        other => ("ServiceUnavailable", other.to_string()),
    };
    FetchError { code: code.to_owned(), message }
}
