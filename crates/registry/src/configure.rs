//! From what a caller asks for to what a version is: AWS's checks that need more than the request's own constraints.
//!
//! Settings whose promise this system could not keep (VPCs, file systems, customer keys, images, ...) are refused
//! rather than stored.

use std::collections::BTreeMap;

use lambent_model::destination::{self, Destination};
use lambent_model::function::{CodeRef, LogFormat, LogLevel, Logging, Network, Provided, Runtime, TracingMode};
use lambent_model::{FunctionArn, limits};
use serde_json::Value;

use crate::ops::event::NOT_BUILT;
use crate::record::{Configured, UsedLayer};
use crate::shape::{LoggingConfig, UpdateFunctionConfigurationRequest};
use crate::{Caller, Error, Registry};

/// The tag that says what a function may reach: `internet` (as without it) or `none`.
pub(crate) const NETWORK_TAG: &str = "lambent:network";

/// Runtimes of AWS today, in the order of its error message.
const AWS_RUNTIMES: &str = "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, \
     java25, python3.10, python3.11, java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, \
     dotnet10, dotnet8, java11, dotnet6, nodejs18.x, provided.al2, java8.al2";
/// Runtimes that AWS no longer takes.
const RETIRED_RUNTIMES: &[&str] = &[
    "java8",
    "go1.x",
    "provided",
    "ruby2.5",
    "ruby2.7",
    "nodejs",
    "nodejs4.3",
    "nodejs4.3-edge",
    "nodejs6.10",
    "nodejs8.10",
    "nodejs10.x",
    "nodejs12.x",
    "nodejs14.x",
    "python2.7",
    "python3.6",
    "python3.7",
    "dotnetcore1.0",
    "dotnetcore2.0",
    "dotnetcore2.1",
    "dotnetcore3.1",
];
/// Environment variables that are Lambda's own.
const RESERVED: &[&str] = &[
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
];

/// AWS's value of `SnapStart.ApplyOn` that is not `None`.
const PUBLISHED_VERSIONS: &str = "PublishedVersions";

fn invalid<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::InvalidParameterValue(text.into()))
}

/// Refuses a setting that would be a false promise.
pub(crate) fn not_built<T>(setting: Option<&T>, name: &'static str) -> Result<(), Error> {
    if setting.is_some() { Err(Error::NotBuilt(name)) } else { Ok(()) }
}

/// This machine's architecture as Lambda calls it.
pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

pub(crate) fn check_architectures(architectures: Option<&[String]>) -> Result<(), Error> {
    match architectures {
        None | Some([]) => Ok(()),
        Some([one]) if one == architecture() => Ok(()),
        Some(other) => invalid(format!(
            "Architectures [{}] cannot run on this machine, which runs [{}].",
            other.join(", "),
            architecture()
        )),
    }
}

impl Configured {
    /// A function that was asked for with nothing but what is mandatory.
    pub(crate) fn fresh(arn: &FunctionArn, runtime: Runtime, code: CodeRef, unzipped_bytes: u64) -> Self {
        Self {
            code,
            unzipped_bytes,
            runtime,
            role: String::new(),
            handler: None,
            description: String::new(),
            timeout_secs: limits::DEFAULT_TIMEOUT.as_secs() as u32,
            memory_mib: limits::DEFAULT_MEMORY_MIB,
            ephemeral_mib: *limits::EPHEMERAL_MIB.start(),
            environment: None,
            layers: Vec::new(),
            architecture: architecture().to_owned(),
            tracing: TracingMode::PassThrough,
            dead_letter: None,
            snap_start: "None".to_owned(),
            per_tenant: false,
            logging: Logging {
                group: default_group(arn),
                format: LogFormat::Text,
                application_level: None,
                system_level: None,
            },
            network: Network::Internet,
        }
    }

    /// Whether its published versions are to be started from snapshots.
    pub(crate) fn takes_snapshots(&self) -> bool {
        self.snap_start == PUBLISHED_VERSIONS
    }

    /// Code and layers together, unpacked, within AWS's limit?
    pub(crate) fn check_size(&self) -> Result<(), Error> {
        let total = self.unzipped_bytes + self.layers.iter().map(|used| used.unzipped_bytes).sum::<u64>();
        if total <= limits::UNZIPPED_CODE_BYTES {
            return Ok(());
        }
        invalid(format!(
            "Function code combined with layers exceeds the maximum allowed size of {} bytes. The actual size is \
             {total} bytes.",
            limits::UNZIPPED_CODE_BYTES
        ))
    }

    /// Whether the two run alike and would be published as one version.
    pub(crate) fn is_same_version(&self, other: &Self) -> bool {
        Self { description: String::new(), ..self.clone() } == Self { description: String::new(), ..other.clone() }
    }
}

fn default_group(arn: &FunctionArn) -> String {
    format!("/aws/lambda/{}", arn.name)
}

/// What a function may reach, by its tags.
pub(crate) fn network(tags: &BTreeMap<String, String>) -> Result<Network, Error> {
    match tags.get(NETWORK_TAG).map(String::as_str) {
        None | Some("internet") => Ok(Network::Internet),
        Some("none") => Ok(Network::None),
        Some(other) => invalid(format!("The tag {NETWORK_TAG} can be internet or none, not {other}.")),
    }
}

impl Registry {
    /// The runtime, if this machine has it.
    pub(crate) fn check_runtime(&self, name: &str) -> Result<Runtime, Error> {
        let found = self.deployer.runtimes();
        let asked = Runtime::try_from(name.to_owned()).ok();
        if let Some(runtime) =
            asked.filter(|runtime| matches!(runtime, Runtime::Provided(_) | Runtime::Wasm) || found.contains(runtime))
        {
            return Ok(runtime);
        }
        if RETIRED_RUNTIMES.contains(&name) {
            return invalid(format!(
                "The runtime parameter of {name} is no longer supported for creating or updating AWS Lambda functions. \
                 We recommend you use a supported runtime while creating or updating functions."
            ));
        }
        if AWS_RUNTIMES.split(", ").any(|known| known == name) {
            let mut names: Vec<String> = found.iter().map(ToString::to_string).collect();
            names.extend([Provided::Al2, Provided::Al2023].map(|os| Runtime::Provided(os).to_string()));
            names.sort();
            names.dedup();
            return invalid(format!("The runtime {name} is not on this machine. It has: [{}].", names.join(", ")));
        }
        invalid(format!(
            "Value {name} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: \
             [{AWS_RUNTIMES}] or be a valid ARN"
        ))
    }

    /// Applies what `request` names to `settings`; what it leaves out stays.
    pub(crate) fn configure(
        &self,
        caller: &Caller,
        arn: &FunctionArn,
        settings: &mut Configured,
        request: &UpdateFunctionConfigurationRequest,
    ) -> Result<(), Error> {
        refuse_false_promises(request)?;
        if let Some(runtime) = &request.runtime {
            settings.runtime = self.check_runtime(runtime)?;
        }
        if let Some(environment) = &request.environment {
            let variables = environment.variables.clone().unwrap_or_default();
            check_environment(&variables)?;
            settings.environment = Some(variables);
        }
        if let Some(layers) = &request.layers {
            settings.layers = self.use_layers(caller, layers)?;
        }
        if let Some(logging) = &request.logging_config {
            settings.logging = self::logging(arn, &settings.logging, logging)?;
        }
        if let Some(snap_start) = request.snap_start.as_ref().and_then(|snap_start| snap_start.apply_on.as_ref()) {
            settings.snap_start.clone_from(snap_start);
        }
        if let Some(tracing) = request.tracing_config.as_ref().and_then(|tracing| tracing.mode.as_ref()) {
            settings.tracing = if tracing == "Active" { TracingMode::Active } else { TracingMode::PassThrough };
        }
        if let Some(dead_letter) = &request.dead_letter_config {
            settings.dead_letter = dead_letter.target_arn.clone().filter(|arn| !arn.is_empty());
            settings.dead_letter.as_deref().map_or(Ok(()), check_dead_letter)?;
        }
        take(&mut settings.role, &request.role);
        take(&mut settings.description, &request.description);
        take(&mut settings.timeout_secs, &request.timeout);
        take(&mut settings.memory_mib, &request.memory_size);
        take(&mut settings.ephemeral_mib, &request.ephemeral_storage.as_ref().map(|storage| storage.size));
        if request.handler.is_some() {
            settings.handler.clone_from(&request.handler);
        }
        check_snap_start(settings)?;
        check_tenancy(settings)?;
        settings.check_size()
    }
}

fn check_dead_letter(target: &str) -> Result<(), Error> {
    match target.parse::<Destination>() {
        Ok(_) => Ok(()),
        Err(destination::Error::NotBuilt(_)) => Err(NOT_BUILT),
        Err(destination::Error::Unknown(_)) => {
            Err(Error::InvalidParameterValue(format!("The provided target ARN {target} is invalid.")))
        }
    }
}

fn take<T: Clone>(setting: &mut T, asked: &Option<T>) {
    if let Some(asked) = asked {
        setting.clone_from(asked);
    }
}

fn refuse_false_promises(request: &UpdateFunctionConfigurationRequest) -> Result<(), Error> {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let vpc = request.vpc_config.as_ref().filter(|vpc| given(&vpc.subnet_ids) || given(&vpc.security_group_ids));
    not_built(vpc, "VpcConfig")?;
    not_built(request.file_system_configs.as_ref().filter(|list| !list.is_empty()), "FileSystemConfigs")?;
    not_built(request.kms_key_arn.as_ref().filter(|arn| !arn.is_empty()), "KMSKeyArn")?;
    not_built(request.image_config.as_ref(), "ImageConfig")?;
    not_built(request.capacity_provider_config.as_ref(), "CapacityProviderConfig")?;
    not_built(request.durable_config.as_ref().filter(|config| **config != Value::Null), "DurableConfig")?;
    not_built(request.runtime_config.as_ref(), "RuntimeConfig")?;
    not_built(request.accelerator_config.as_ref(), "AcceleratorConfig")
}

fn check_environment(variables: &BTreeMap<String, String>) -> Result<(), Error> {
    let reserved: Vec<&str> = variables.keys().map(String::as_str).filter(|key| RESERVED.contains(key)).collect();
    let begin = "Lambda was unable to configure your environment variables because the environment variables you have \
                 provided";
    if !reserved.is_empty() {
        return invalid(format!(
            "{begin} contains reserved keys that are currently not supported for modification. Reserved keys used in \
             this request: {}",
            reserved.join(", ")
        ));
    }
    let measured = serde_json::to_string(variables).unwrap_or_default();
    if measured.len() > limits::ENVIRONMENT_BYTES {
        return invalid(format!("{begin} exceeded the 4KB limit. String measured: {measured}"));
    }
    Ok(())
}

fn check_snap_start(settings: &Configured) -> Result<(), Error> {
    let most = limits::SNAP_START_EPHEMERAL_MIB;
    match &settings.runtime {
        _ if !settings.takes_snapshots() => Ok(()),
        Runtime::Python { minor: 12.. } if settings.ephemeral_mib > most => invalid(format!(
            "Ephemeral storage of more than {most} MB is not supported for SnapStart enabled functions."
        )),
        Runtime::Python { minor: 12.. } => Ok(()),
        other => invalid(format!("{other} is not supported for SnapStart enabled functions.")),
    }
}

/// What AWS does not have for tenants (<https://docs.aws.amazon.com/lambda/latest/dg/tenant-isolation.html>), and WebAssembly, whose host
/// processes may keep an instance for the next call.
fn check_tenancy(settings: &Configured) -> Result<(), Error> {
    match &settings.runtime {
        _ if !settings.per_tenant => Ok(()),
        _ if settings.takes_snapshots() => {
            invalid("SnapStart is not supported for functions with tenancy configuration.")
        }
        Runtime::Wasm => {
            invalid(format!("{} is not supported for functions with tenancy configuration.", settings.runtime))
        }
        Runtime::Python { .. } | Runtime::Node { .. } | Runtime::Provided(_) => Ok(()),
    }
}

fn logging(arn: &FunctionArn, before: &Logging, asked: &LoggingConfig) -> Result<Logging, Error> {
    let format = match asked.log_format.as_deref() {
        Some("JSON") => LogFormat::Json,
        Some(_) => LogFormat::Text,
        None => before.format,
    };
    let group = match asked.log_group.as_deref() {
        Some("") => default_group(arn),
        Some(group) => group.to_owned(),
        None => before.group.clone(),
    };
    match format {
        LogFormat::Text if asked.application_log_level.is_some() || asked.system_log_level.is_some() => invalid(
            "LogLevel is not supported when LogFormat is set to \"Text\". Remove LogLevel from your request or change \
             the LogFormat to \"JSON\" and try again.",
        ),
        LogFormat::Text => Ok(Logging { group, format, application_level: None, system_level: None }),
        LogFormat::Json => Ok(Logging {
            group,
            format,
            application_level: Some(
                level(&asked.application_log_level).or(before.application_level).unwrap_or(LogLevel::Info),
            ),
            system_level: Some(level(&asked.system_log_level).or(before.system_level).unwrap_or(LogLevel::Info)),
        }),
    }
}

fn level(name: &Option<String>) -> Option<LogLevel> {
    serde_json::from_value(Value::String(name.clone()?)).ok()
}

/// A layer version that a function may use.
pub(crate) fn used(arn: String, code: CodeRef, unzipped_bytes: u64) -> UsedLayer {
    UsedLayer { layer: lambent_model::function::LayerRef { arn, code }, unzipped_bytes }
}
