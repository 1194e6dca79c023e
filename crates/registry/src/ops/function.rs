//! Functions: create, read, update, delete, list.

use std::sync::Arc;

use jiff::Timestamp;
use lambent_model::{FunctionArn, FunctionName, Qualifier, Version};
use lambent_store::port::{Expect, Write};
use uuid::Uuid;

use super::version::publish;
use crate::code::{Code, Location, Package, sha256_text};
use crate::configure::{self, not_built};
use crate::deploy::{self, settled};
use crate::locate::{Target, missing};
use crate::page::page;
use crate::record::{Config, Configured, Head, Lifecycle, Signing};
use crate::registry::{ATTEMPTS, Draft, document};
use crate::render::{Suffix, configuration, listed, sortable};
use crate::shape::*;
use crate::snapshot::Function;
use crate::{Caller, Error, Registry, key};

/// Functions and versions on one page of a list, whatever was asked.
pub(super) const PAGE: usize = 50;

pub(super) const WRONG_REVISION: &str = "The Revision Id provided does not match the latest Revision Id. Call the \
     GetFunction/GetAlias API to retrieve the latest Revision Id";

/// Whether a change was decided on what the caller has seen.
pub(super) fn check_revision(asked: Option<&String>, actual: Uuid, text: &str) -> Result<(), Error> {
    match asked {
        Some(asked) if *asked != actual.to_string() => Err(Error::PreconditionFailed(text.to_owned())),
        _ => Ok(()),
    }
}

impl Registry {
    /// AWS's `CreateFunction`. The function is `Pending` until its code is ready.
    pub async fn create_function(
        self: &Arc<Self>,
        caller: &Caller,
        request: CreateFunctionRequest,
    ) -> Result<FunctionConfiguration, Error> {
        let arn = self.new_name(caller, &request.function_name)?;
        if self.snapshot.functions.get(&arn).is_some() {
            return Err(exists(&arn));
        }
        refuse_false_promises(&request)?;
        let (Some(runtime), Some(_)) = (&request.runtime, &request.handler) else {
            let text = "Runtime and Handler are mandatory parameters for functions created with deployment packages.";
            return Err(Error::InvalidParameterValue(text.to_owned()));
        };
        self.deployer.ready().await;
        let runtime = self.check_runtime(runtime)?;
        configure::check_architectures(request.architectures.as_deref())?;
        let tags = request.tags.clone().unwrap_or_default();
        super::tags::check(&tags)?;
        let network = configure::network(&tags)?;
        self.check_signing(&arn, request.code_signing_config_arn.as_deref())?;
        let package = Package::of(&runtime, request.handler.as_ref());
        let code = self.take_code(&arn.account, location(&request.code), package).await?;
        let mut settings = Configured::fresh(&arn, runtime, code.code.clone(), code.unzipped_bytes);
        settings.network = network;
        settings.per_tenant = request.tenancy_config.is_some();
        self.configure(caller, &arn, &mut settings, &as_update(&request))?;

        let now = self.clock.now();
        let head = self.create(&arn, now, |next_version| {
            let latest = Config {
                version: Version::Latest,
                revision_id: Uuid::new_v4(),
                generation: Uuid::new_v4(),
                last_modified: now,
                state: Lifecycle::Pending,
                settings: settings.clone(),
            };
            fresh_head(&arn, latest, next_version, &request)
        });
        let (head, version) = head.await?;
        deploy::prepare(self, head.latest.runnable(&arn));
        match version {
            Some(version) => {
                deploy::prepare(self, version.runnable(&arn));
                Ok(configuration(&arn, &version, Suffix::Nothing))
            }
            None => Ok(configuration(&arn, &head.latest, Suffix::Nothing)),
        }
    }

    /// Commits a new function, and its first version where `make` has counted one.
    async fn create(
        &self,
        arn: &FunctionArn,
        now: Timestamp,
        make: impl Fn(u64) -> (Head, bool),
    ) -> Result<(Head, Option<Config>), Error> {
        for _ in 0..ATTEMPTS {
            let number = self.snapshot.numbers.get(&key::number(arn));
            let (mut head, publishes) = make(number.as_ref().map_or(1, |number| number.value));
            let mut writes = Vec::new();
            if let Some(number) = &number {
                let expect = Expect::Revision(number.revision);
                writes.push(Write { key: key::number(arn), expect, value: None });
            }
            let mut version = None;
            if publishes {
                let config = publish(&mut head, None, now);
                let key = key::version(arn, head.next_version - 1);
                writes.push(Write { key, expect: Expect::Absent, value: Some(document(&config)?) });
                version = Some(config);
            }
            let value = Some(document(&head)?);
            writes.push(Write { key: key::function(arn), expect: Expect::Absent, value });
            match self.commit(writes).await {
                Ok(()) => return Ok((head, version)),
                Err(Error::Store(lambent_store::Error::Conflict { key, actual })) => {
                    self.catch_up(actual).await;
                    if key == key::function(arn) && self.snapshot.functions.get(arn).is_some() {
                        return Err(exists(arn));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::TooManyRequests)
    }

    /// The ARN of a function to be made: names are shorter here than elsewhere, and it can only be the caller's.
    fn new_name(&self, caller: &Caller, name: &str) -> Result<FunctionArn, Error> {
        let bare = name.rsplit(':').next().unwrap_or(name);
        if bare.parse::<FunctionName>().is_err() && bare.len() > 64 {
            return Err(Error::InvalidParameterValue(format!(
                "1 validation error detected: Value '{bare}' at 'functionName' failed to satisfy constraint: Member \
                 must have length less than or equal to 64"
            )));
        }
        let target = self.locate(caller, "CreateFunction", name, None)?;
        match target.qualifier {
            None => Ok(target.arn),
            Some(_) => Err(Error::InvalidParameterValue(
                "The function name cannot contain a qualifier when a function is created.".to_owned(),
            )),
        }
    }

    /// AWS's `GetFunction`.
    pub async fn get_function(
        &self,
        caller: &Caller,
        request: GetFunctionRequest,
    ) -> Result<GetFunctionResponse, Error> {
        let target = self.locate(caller, "GetFunction", &request.function_name, request.qualifier.as_deref())?;
        let (function, config) = self.find(&target)?;
        let head = &function.head;
        Ok(GetFunctionResponse {
            configuration: Some(self.with_optimization(
                configuration(&target.arn, &config, Suffix::Of(target.qualifier.as_ref())),
                &config,
            )),
            code: Some(FunctionCodeLocation {
                repository_type: Some("S3".to_owned()),
                location: Some(self.link(config.settings.code.digest)),
                ..FunctionCodeLocation::default()
            }),
            tags: Some(head.tags.clone()).filter(|tags| !tags.is_empty()),
            concurrency: head
                .reserved_concurrency
                .map(|reserved| Concurrency { reserved_concurrent_executions: Some(reserved) }),
            ..GetFunctionResponse::default()
        })
    }

    /// AWS's `GetFunctionConfiguration`.
    pub async fn get_function_configuration(
        &self,
        caller: &Caller,
        request: GetFunctionConfigurationRequest,
    ) -> Result<FunctionConfiguration, Error> {
        let (name, qualifier) = (&request.function_name, request.qualifier.as_deref());
        let target = self.locate(caller, "GetFunctionConfiguration", name, qualifier)?;
        let (_, config) = self.find(&target)?;
        let shown = configuration(&target.arn, &config, Suffix::Of(target.qualifier.as_ref()));
        Ok(self.with_optimization(shown, &config))
    }

    /// The function and the configuration a target means.
    pub(super) fn find(&self, target: &Target) -> Result<(Arc<Function>, Config), Error> {
        let absent = || missing(&target.arn, target.qualifier.as_ref());
        let function = self.snapshot.functions.get(&target.arn).ok_or_else(absent)?;
        let config = function.qualified(target.qualifier.as_ref()).ok_or_else(absent)?.clone();
        Ok((function, config))
    }

    /// AWS's `UpdateFunctionCode`.
    pub async fn update_function_code(
        self: &Arc<Self>,
        caller: &Caller,
        request: UpdateFunctionCodeRequest,
    ) -> Result<FunctionConfiguration, Error> {
        let arn = self.locate_whole(caller, "UpdateFunctionCode", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        if request.image_uri.is_some() {
            let text = "Please don't provide ImageUri when updating a function with packageType Zip.";
            return Err(Error::InvalidParameterValue(text.to_owned()));
        }
        not_built(request.publish_to.as_ref(), "PublishTo")?;
        not_built(request.source_kms_key_arn.as_ref().filter(|arn| !arn.is_empty()), "SourceKMSKeyArn")?;
        configure::check_architectures(request.architectures.as_deref())?;
        // Early, so that nobody uploads 50 MB in vain; and again where it counts.
        check_revision(request.revision_id.as_ref(), function.head.latest.revision_id, WRONG_REVISION)?;
        settled(&arn, &function.head.latest.state)?;
        self.check_signing(&arn, function.head.code_signing.as_deref())?;
        let settings = &function.head.latest.settings;
        let package = Package::of(&settings.runtime, settings.handler.as_ref());
        let code = self.take_code(&arn.account, update_location(&request), package).await?;
        let now = self.clock.now();
        let (latest, version) = self
            .change(&arn, |_, draft| {
                check_revision(request.revision_id.as_ref(), draft.head.latest.revision_id, WRONG_REVISION)?;
                settled(&arn, &draft.head.latest.state)?;
                let mut settings = draft.head.latest.settings.clone();
                settings.code = code.code.clone();
                settings.unzipped_bytes = code.unzipped_bytes;
                settings.check_size()?;
                if request.dry_run == Some(true) {
                    return Ok((Config { settings, ..draft.head.latest.clone() }, None));
                }
                update(&arn, draft, settings, now);
                let version = (request.publish == Some(true)).then(|| publish(&mut draft.head, None, now));
                if let Some(version) = &version {
                    draft.versions.insert(draft.head.next_version - 1, Some(version.clone()));
                }
                Ok((draft.head.latest.clone(), version))
            })
            .await?;
        drop::<Code<'_>>(code);
        if request.dry_run == Some(true) {
            return Ok(configuration(&arn, &latest, Suffix::Nothing));
        }
        deploy::prepare(self, latest.runnable(&arn));
        match version {
            Some(version) => {
                deploy::prepare(self, version.runnable(&arn));
                Ok(configuration(&arn, &version, Suffix::Version))
            }
            None => Ok(configuration(&arn, &latest, Suffix::Nothing)),
        }
    }

    /// AWS's `UpdateFunctionConfiguration`.
    pub async fn update_function_configuration(
        self: &Arc<Self>,
        caller: &Caller,
        request: UpdateFunctionConfigurationRequest,
    ) -> Result<FunctionConfiguration, Error> {
        let arn = self.locate_whole(caller, "UpdateFunctionConfiguration", &request.function_name)?;
        if request.runtime.is_some() {
            self.deployer.ready().await;
        }
        let now = self.clock.now();
        let latest = self
            .change(&arn, |_, draft| {
                check_revision(request.revision_id.as_ref(), draft.head.latest.revision_id, WRONG_REVISION)?;
                settled(&arn, &draft.head.latest.state)?;
                let mut settings = draft.head.latest.settings.clone();
                self.configure(caller, &arn, &mut settings, &request)?;
                update(&arn, draft, settings, now);
                Ok(draft.head.latest.clone())
            })
            .await?;
        deploy::prepare(self, latest.runnable(&arn));
        Ok(configuration(&arn, &latest, Suffix::Nothing))
    }

    /// AWS's `DeleteFunction`: of a version where one is named, of everything otherwise.
    pub async fn delete_function(
        &self,
        caller: &Caller,
        request: DeleteFunctionRequest,
    ) -> Result<DeleteFunctionResponse, Error> {
        let target = self.locate(caller, "DeleteFunction", &request.function_name, request.qualifier.as_deref())?;
        let invalid = |text: &str| Err(Error::InvalidParameterValue(text.to_owned()));
        match target.qualifier {
            None => self.delete_whole(&target.arn).await?,
            Some(Qualifier::Version(Version::Published(number))) => {
                self.delete_version(&target.arn, number.get()).await?
            }
            Some(Qualifier::Version(Version::Latest)) => {
                return invalid("$LATEST version cannot be deleted without deleting the function.");
            }
            Some(Qualifier::Alias(_)) => return invalid("Deletion of aliases is not currently supported."),
        }
        Ok(DeleteFunctionResponse { status_code: Some(204) })
    }

    async fn delete_whole(&self, arn: &FunctionArn) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let function = self.snapshot.functions.get(arn).ok_or_else(|| missing(arn, None))?;
            let mut writes: Vec<Write> = Vec::new();
            for (number, published) in &function.versions {
                let expect = Expect::Revision(published.revision);
                writes.push(Write { key: key::version(arn, *number), expect, value: None });
            }
            if function.head.next_version > 1 {
                let value = Some(document(&function.head.next_version)?);
                writes.push(Write { key: key::number(arn), expect: Expect::Anything, value });
            }
            let expect = Expect::Revision(function.revision);
            writes.push(Write { key: key::function(arn), expect, value: None });
            match self.commit(writes).await {
                Ok(()) => {
                    self.deployer.retire(function.running.generation);
                    function.versions.values().for_each(|gone| self.deployer.retire(gone.running.generation));
                    return Ok(());
                }
                Err(Error::Store(lambent_store::Error::Conflict { actual, .. })) => self.catch_up(actual).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::TooManyRequests)
    }

    /// AWS's `ListFunctions`.
    pub async fn list_functions(
        &self,
        caller: &Caller,
        request: ListFunctionsRequest,
    ) -> Result<ListFunctionsResponse, Error> {
        let mut items = Vec::new();
        // There are no replicas of functions of other regions.
        let functions = if request.master_region.is_some() { Vec::new() } else { self.snapshot.functions.all() };
        for function in functions.iter().filter(|function| function.head.arn.account == caller.account) {
            let arn = &function.head.arn;
            if request.function_version.is_some() {
                let versions = function.configs();
                items.extend(versions.map(|config| {
                    (format!("{}/{}", arn.name, sortable(config.version)), listed(arn, config, Suffix::Version))
                }));
            } else {
                items.push((arn.name.to_string(), listed(arn, &function.head.latest, Suffix::Nothing)));
            }
        }
        let (functions, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListFunctionsResponse { functions: Some(functions), next_marker })
    }

    /// Whether unsigned code may be deployed under this code signing configuration. No code is signed here.
    fn check_signing(&self, arn: &FunctionArn, signing: Option<&str>) -> Result<(), Error> {
        let Some(signing) = signing else { return Ok(()) };
        let signing: Signing = super::signing::find_to_use(self, &arn.account, signing)?;
        if signing.policies.untrusted_artifact_on_deployment.as_deref() == Some("Enforce") {
            return Err(Error::CodeVerificationFailed(
                "The code signature failed one or more of the validation checks for signature mismatch or expiry, and \
                 the code signing policy is set to ENFORCE. Lambda blocks the deployment."
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

fn exists(arn: &FunctionArn) -> Error {
    Error::ResourceConflict(format!("Function already exist: {}", arn.name))
}

/// Puts new settings in `$LATEST`; what ran until now runs on until they are ready.
pub(super) fn update(arn: &FunctionArn, draft: &mut Draft, settings: Configured, now: Timestamp) {
    let head = &mut draft.head;
    let state = match head.latest.state {
        Lifecycle::Active => {
            head.active = Some(head.latest.runnable(arn));
            Lifecycle::Updating
        }
        // What runs is older than `latest` already.
        Lifecycle::UpdateFailed { .. } | Lifecycle::Updating => Lifecycle::Updating,
        Lifecycle::Failed { .. } | Lifecycle::Pending => Lifecycle::Pending,
    };
    head.latest = Config {
        version: Version::Latest,
        revision_id: Uuid::new_v4(),
        generation: Uuid::new_v4(),
        last_modified: now,
        state,
        settings,
    };
}

fn fresh_head(arn: &FunctionArn, latest: Config, next_version: u64, request: &CreateFunctionRequest) -> (Head, bool) {
    let head = Head {
        arn: arn.clone(),
        latest,
        active: None,
        next_version,
        tags: request.tags.clone().unwrap_or_default(),
        aliases: Default::default(),
        policies: Default::default(),
        urls: Default::default(),
        reserved_concurrency: None,
        provisioned: Default::default(),
        runtime_management: Default::default(),
        recursive_loop: None,
        event_invoke: Default::default(),
        idempotency: None,
        affinity: None,
        code_signing: request.code_signing_config_arn.clone().filter(|arn| !arn.is_empty()),
    };
    (head, request.publish == Some(true))
}

fn refuse_false_promises(request: &CreateFunctionRequest) -> Result<(), Error> {
    not_built(request.package_type.as_ref().filter(|package| **package == PackageType::Image), "PackageType Image")?;
    not_built(request.code.image_uri.as_ref(), "ImageUri")?;
    not_built(request.code.source_kms_key_arn.as_ref().filter(|arn| !arn.is_empty()), "SourceKMSKeyArn")?;
    not_built(request.publish_to.as_ref(), "PublishTo")
}

fn location(code: &FunctionCode) -> Location {
    Location {
        zip: code.zip_file.clone().map(|zip| zip.0),
        bucket: code.s3_bucket.clone(),
        key: code.s3_key.clone(),
        version: code.s3_object_version.clone(),
    }
}

fn update_location(request: &UpdateFunctionCodeRequest) -> Location {
    Location {
        zip: request.zip_file.clone().map(|zip| zip.0),
        bucket: request.s3_bucket.clone(),
        key: request.s3_key.clone(),
        version: request.s3_object_version.clone(),
    }
}

/// The settings of a creation, as the update of a fresh function that they are.
fn as_update(request: &CreateFunctionRequest) -> UpdateFunctionConfigurationRequest {
    let request = request.clone();
    UpdateFunctionConfigurationRequest {
        function_name: request.function_name,
        role: Some(request.role),
        handler: request.handler,
        description: request.description,
        timeout: request.timeout,
        memory_size: request.memory_size,
        vpc_config: request.vpc_config,
        environment: request.environment,
        runtime: None,
        dead_letter_config: request.dead_letter_config,
        kms_key_arn: request.kms_key_arn,
        tracing_config: request.tracing_config,
        revision_id: None,
        layers: request.layers,
        file_system_configs: request.file_system_configs,
        image_config: request.image_config,
        ephemeral_storage: request.ephemeral_storage,
        snap_start: request.snap_start,
        logging_config: request.logging_config,
        capacity_provider_config: request.capacity_provider_config,
        durable_config: request.durable_config,
        runtime_config: request.runtime_config,
        accelerator_config: request.accelerator_config,
    }
}

/// Whether `sha256` is that of `$LATEST`, as `PublishVersion` can ask for.
pub(super) fn check_sha256(asked: Option<&String>, latest: &Config) -> Result<(), Error> {
    let actual = sha256_text(&latest.settings.code);
    match asked {
        Some(asked) if *asked != actual => Err(Error::InvalidParameterValue(format!(
            "CodeSHA256 ({asked}) is different from current CodeSHA256 in $LATEST ({actual}). Please try again with \
             the CodeSHA256 in $LATEST."
        ))),
        _ => Ok(()),
    }
}
