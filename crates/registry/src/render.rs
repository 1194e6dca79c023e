//! Records as AWS shows them.

use lambent_model::clock::last_modified;
use lambent_model::function::{LogFormat, TracingMode};
use lambent_model::{FunctionArn, Qualifier, Version};

use crate::code::sha256_text;
use crate::deploy::CREATING;
use crate::record::{Alias, Config, Lifecycle};
use crate::shape::{
    AliasConfiguration, AliasRoutingConfiguration, DeadLetterConfig, EnvironmentResponse, EphemeralStorage,
    FunctionConfiguration, Layer, LoggingConfig, PackageType, SnapStartResponse, TenancyConfig, TracingConfig,
};

/// What `FunctionArn` ends with.
#[derive(Clone, Copy)]
pub(crate) enum Suffix<'a> {
    Nothing,
    Version,
    Of(Option<&'a Qualifier>),
}

/// A version as `GetFunctionConfiguration` shows it.
pub(crate) fn configuration(arn: &FunctionArn, config: &Config, suffix: Suffix<'_>) -> FunctionConfiguration {
    let settings = &config.settings;
    let (reason, code) = match &config.state {
        Lifecycle::Pending => (Some(CREATING.to_owned()), Some("Creating")),
        Lifecycle::Failed { reason } => (Some(reason.clone()), Some("InternalError")),
        Lifecycle::Active | Lifecycle::Updating | Lifecycle::UpdateFailed { .. } => (None, None),
    };
    let (update_reason, update_code) = match &config.state {
        Lifecycle::Updating => (Some(CREATING.to_owned()), Some("Creating")),
        Lifecycle::UpdateFailed { reason } => (Some(reason.clone()), Some("InternalError")),
        Lifecycle::Pending | Lifecycle::Failed { .. } | Lifecycle::Active => (None, None),
    };
    FunctionConfiguration {
        function_name: Some(arn.name.to_string()),
        function_arn: Some(match suffix {
            Suffix::Nothing | Suffix::Of(None) => arn.to_string(),
            Suffix::Version => arn.qualified(config.version),
            Suffix::Of(Some(qualifier)) => arn.qualified(qualifier),
        }),
        runtime: Some(settings.runtime.to_string()),
        role: Some(settings.role.clone()),
        handler: settings.handler.clone(),
        code_size: Some(settings.code.zipped_bytes),
        description: Some(settings.description.clone()),
        timeout: Some(settings.timeout_secs),
        memory_size: Some(settings.memory_mib),
        last_modified: Some(last_modified(config.last_modified)),
        code_sha256: Some(sha256_text(&settings.code)),
        version: Some(config.version.to_string()),
        dead_letter_config: settings.dead_letter.clone().map(|arn| DeadLetterConfig { target_arn: Some(arn) }),
        environment: settings
            .environment
            .clone()
            .map(|variables| EnvironmentResponse { variables: Some(variables), error: None }),
        tracing_config: Some(TracingConfig {
            mode: Some(match settings.tracing {
                TracingMode::Active => "Active".to_owned(),
                TracingMode::PassThrough => "PassThrough".to_owned(),
            }),
        }),
        revision_id: Some(config.revision_id.to_string()),
        layers: Some(settings.layers.iter().map(layer).collect()).filter(|layers: &Vec<Layer>| !layers.is_empty()),
        state: Some(config.state.state()),
        state_reason: reason,
        state_reason_code: code.map(str::to_owned),
        last_update_status: config.state.last_update(),
        last_update_status_reason: update_reason,
        last_update_status_reason_code: update_code.map(str::to_owned),
        package_type: Some(PackageType::Zip),
        architectures: Some(vec![settings.architecture.clone()]),
        ephemeral_storage: Some(EphemeralStorage { size: settings.ephemeral_mib }),
        snap_start: Some(SnapStartResponse {
            apply_on: Some(settings.snap_start.clone()),
            optimization_status: Some("Off".to_owned()),
        }),
        logging_config: Some(logging(&settings.logging)),
        tenancy_config: settings.per_tenant.then(|| TenancyConfig { tenant_isolation_mode: "PER_TENANT".to_owned() }),
        ..FunctionConfiguration::default()
    }
}

/// The same as lists show it: without states.
pub(crate) fn listed(arn: &FunctionArn, config: &Config, suffix: Suffix<'_>) -> FunctionConfiguration {
    FunctionConfiguration {
        state: None,
        state_reason: None,
        state_reason_code: None,
        last_update_status: None,
        last_update_status_reason: None,
        last_update_status_reason_code: None,
        ..configuration(arn, config, suffix)
    }
}

fn layer(used: &crate::record::UsedLayer) -> Layer {
    Layer {
        arn: Some(used.layer.arn.clone()),
        code_size: Some(used.layer.code.zipped_bytes),
        signing_profile_version_arn: None,
        signing_job_arn: None,
    }
}

fn logging(logging: &lambent_model::function::Logging) -> LoggingConfig {
    let level = |level: Option<lambent_model::function::LogLevel>| {
        level.and_then(|level| serde_json::to_value(level).ok()).and_then(|text| text.as_str().map(str::to_owned))
    };
    LoggingConfig {
        log_format: Some(match logging.format {
            LogFormat::Text => "Text".to_owned(),
            LogFormat::Json => "JSON".to_owned(),
        }),
        application_log_level: level(logging.application_level),
        system_log_level: level(logging.system_level),
        log_group: Some(logging.group.clone()),
    }
}

pub(crate) fn alias(arn: &FunctionArn, name: &str, alias: &Alias) -> AliasConfiguration {
    AliasConfiguration {
        alias_arn: Some(arn.qualified(name)),
        name: Some(name.to_owned()),
        function_version: Some(alias.version.to_string()),
        description: Some(alias.description.clone()),
        routing_config: alias.additional.map(|(version, share)| AliasRoutingConfiguration {
            additional_version_weights: Some([(version.to_string(), share)].into()),
        }),
        revision_id: Some(alias.revision_id.to_string()),
    }
}

/// So that versions sort: `$LATEST`, then by number.
pub(crate) fn sortable(version: Version) -> String {
    match version {
        Version::Latest => format!("{:020}", 0),
        Version::Published(number) => format!("{number:020}"),
    }
}
