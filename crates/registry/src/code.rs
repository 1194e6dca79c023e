//! Code: where it comes from, whether it is sound, where it is kept, and how it is fetched back.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lambent_model::function::{CodeRef, Runtime};
use lambent_model::{AccountId, Digest, limits};
use lambent_store::package;

use crate::registry::FetchError;
use crate::{Error, Registry};

/// How long a download link works, in seconds; AWS's are good for ten minutes.
const LINK_SECONDS: i64 = 600;

/// Where a request says that code is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Location {
    pub(crate) zip: Option<Bytes>,
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) version: Option<String>,
}

/// What code has to be.
#[derive(Debug, Clone)]
pub(crate) enum Package {
    /// A zip.
    Zip,
    /// A WebAssembly component, in a zip or by itself.
    Component {
        /// Names the file, perhaps.
        handler: Option<String>,
    },
}

impl Package {
    /// What a function with these settings needs.
    pub(crate) fn of(runtime: &Runtime, handler: Option<&String>) -> Self {
        match runtime {
            Runtime::Wasm => Self::Component { handler: handler.cloned() },
            Runtime::Python { .. } | Runtime::Node { .. } | Runtime::Provided(_) => Self::Zip,
        }
    }

    fn check(&self, bytes: &[u8]) -> Result<package::Contents, package::Error> {
        match self {
            Self::Zip => package::check(bytes),
            Self::Component { handler } => package::component::check(bytes, handler.as_deref()),
        }
    }
}

/// Sound code in the blob store, held there until this is dropped.
pub(crate) struct Code<'a> {
    pub(crate) code: CodeRef,
    pub(crate) unzipped_bytes: u64,
    _hold: Hold<'a>,
}

/// Blobs that are being written or not yet referred to by a commit; the sweep leaves them alone.
#[derive(Default)]
pub(crate) struct Uploads(Mutex<Held>);

/// Packages that are checked at the same time; each keeps a core busy for up to a second.
pub(crate) const CHECKS: usize = 4;

#[derive(Default)]
struct Held {
    now: HashMap<Digest, usize>,
    /// Held at any time since the running sweep began.
    lately: HashSet<Digest>,
}

impl Uploads {
    fn hold(&self, digest: Digest) -> Hold<'_> {
        let mut held = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *held.now.entry(digest).or_default() += 1;
        held.lately.insert(digest);
        Hold { uploads: self, digest }
    }

    /// A sweep begins: what is held now is the start of what it must spare.
    pub(crate) fn begin_sweep(&self) {
        let mut held = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        held.lately = held.now.keys().copied().collect();
    }

    /// Whether a blob was held at any time since the sweep began.
    pub(crate) fn is_spared(&self, digest: Digest) -> bool {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).lately.contains(&digest)
    }
}

struct Hold<'a> {
    uploads: &'a Uploads,
    digest: Digest,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut held = self.uploads.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(count) = held.now.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                held.now.remove(&self.digest);
            }
        }
    }
}

impl Registry {
    /// Fetches, checks and keeps code.
    pub(crate) async fn take_code(
        &self,
        account: &AccountId,
        location: Location,
        package: Package,
    ) -> Result<Code<'_>, Error> {
        let zip = self.fetch(location).await?;
        let checked = zip.clone();
        let turn = self.checks.acquire().await.map_err(|source| internal("checking a package", source))?;
        let (digest, contents) = tokio::task::spawn_blocking(move || (digest_of(&checked), package.check(&checked)))
            .await
            .map_err(|source| internal("checking a package", source))?;
        drop(turn);
        let contents = contents.map_err(refused)?;
        if self.code_bytes(account).saturating_add(zip.len() as u64) > limits::TOTAL_CODE_BYTES {
            return Err(Error::CodeStorageExceeded("Code storage limit exceeded.".to_owned()));
        }
        // Before the blob is written, so that a sweep cannot come in between.
        let hold = self.uploads.hold(digest);
        let _sweep = self.sweeping.read().await;
        let zipped_bytes = zip.len() as u64;
        let digest = self.blobs.put(zip).await?;
        Ok(Code { code: CodeRef { digest, zipped_bytes }, unzipped_bytes: contents.unzipped_bytes, _hold: hold })
    }

    async fn fetch(&self, location: Location) -> Result<Bytes, Error> {
        let invalid = |text: &str| Err(Error::InvalidParameterValue(text.to_owned()));
        match location {
            Location { zip: Some(_), bucket: Some(_), .. } | Location { zip: Some(_), key: Some(_), .. } => {
                invalid("Please do not provide other FunctionCode parameters when providing a ZipFile.")
            }
            Location { zip: Some(zip), .. } => {
                if zip.len() as u64 > limits::ZIPPED_CODE_BYTES {
                    return Err(too_large(limits::ZIPPED_CODE_BYTES));
                }
                Ok(zip)
            }
            Location { bucket: Some(bucket), key: Some(key), version, .. } => {
                let fetched = self.source.fetch(&bucket, &key, version.as_deref(), limits::UNZIPPED_CODE_BYTES).await;
                fetched.map_err(|FetchError { code, message }| {
                    Error::InvalidParameterValue(format!(
                        "Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}"
                    ))
                })
            }
            Location { bucket: Some(_), key: None, .. } => invalid("Please provide a S3 key for the function code."),
            Location { .. } => invalid("Please provide a source for function code."),
        }
    }

    /// Bytes of an account's code and layers, as `GetAccountSettings` counts them: each version by itself.
    pub(crate) fn code_bytes(&self, account: &AccountId) -> u64 {
        let mut total = 0;
        for function in self.snapshot.functions.all().iter().filter(|function| function.head.arn.account == *account) {
            total += function.configs().map(|config| config.settings.code.zipped_bytes).sum::<u64>();
        }
        let own = format!(":{account}:");
        for layer in self.snapshot.layers.all().iter().filter(|layer| layer.value.arn.contains(&own)) {
            total += layer.value.versions.values().map(|version| version.code.zipped_bytes).sum::<u64>();
        }
        total
    }

    /// A link that gives a blob to whoever holds it, for a while.
    pub(crate) fn link(&self, digest: Digest) -> String {
        let expires = self.clock.now().as_second() + LINK_SECONDS;
        let signature = hex::encode(hmac::sign(&self.secret, signed(&digest.to_string(), expires).as_bytes()));
        format!("{}/_lambent/code/{digest}?expires={expires}&signature={signature}", self.settings.endpoint)
    }

    /// The zip behind a `Code.Location` or `Content.Location` link
    /// (`ENDPOINT/_lambent/code/DIGEST?expires=&signature=`).
    pub async fn download(&self, digest: &str, expires: i64, signature: &str) -> Result<Bytes, Error> {
        let refused = || Error::AccessDenied("Request has expired".to_owned());
        let tag = hex::decode(signature).map_err(|_| refused())?;
        hmac::verify(&self.secret, signed(digest, expires).as_bytes(), &tag).map_err(|_| refused())?;
        if self.clock.now().as_second() > expires {
            return Err(refused());
        }
        let gone = || Error::ResourceNotFound("The resource you requested does not exist.".to_owned());
        let digest: Digest = digest.parse().map_err(|_| gone())?;
        self.blobs.get(digest).await?.ok_or_else(gone)
    }
}

fn signed(digest: &str, expires: i64) -> String {
    format!("code\n{digest}\n{expires}")
}

fn digest_of(content: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, content).as_ref());
    Digest::from(bytes)
}

/// `CodeSha256` as the API writes it.
pub(crate) fn sha256_text(code: &CodeRef) -> String {
    STANDARD.encode(code.digest.as_bytes())
}

fn too_large(limit: u64) -> Error {
    Error::RequestTooLarge(format!("Zipped size must be smaller than {limit} bytes"))
}

fn refused(error: package::Error) -> Error {
    match error {
        package::Error::Unreadable { .. }
        | package::Error::TooLarge { .. }
        | package::Error::Empty
        | package::Error::Component { .. } => {
            tracing::debug!(?error, "a package is refused");
            Error::InvalidParameterValue(error.to_string())
        }
        package::Error::Io(source) => internal("checking a package", source),
    }
}

pub(crate) fn internal(operation: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Store(lambent_store::Error::Backend { operation, source: source.into() })
}
