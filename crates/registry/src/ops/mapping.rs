//! Event source mappings, as state: what polls them comes with the asynchronous invocations.
//!
//! A mapping says `Enabled` or `Disabled` as its owner wants it, and `No records processed`, which is true until then.

use aws_lc_rs::digest::{SHA256, digest};
use lambent_model::FunctionArn;
use lambent_store::port::{Expect, Write};
use serde_json::Value;
use uuid::Uuid;

use crate::page::page;
use crate::record::Mapping;
use crate::registry::document;
use crate::shape::*;
use crate::{Caller, Error, Registry, key};

const PAGE: usize = 100;

fn invalid<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::InvalidParameterValue(text.into()))
}

fn gone() -> Error {
    Error::ResourceNotFound("The resource you requested does not exist.".to_owned())
}

/// What records come from, as far as AWS's rules tell sources apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Queue { is_fifo: bool },
    Kinesis,
    DynamoDb,
    Kafka,
    Mq,
    DocumentDb,
}

impl Source {
    fn of(request: &CreateEventSourceMappingRequest) -> Result<Self, Error> {
        if request.self_managed_event_source.is_some() {
            if request.source_access_configurations.is_none() {
                return invalid("Required 'sourceAccessConfigurations' parameter is missing.");
            }
            return Ok(Self::Kafka);
        }
        let Some(arn) = &request.event_source_arn else { return invalid("Unrecognized event source.") };
        match arn.split(':').nth(2) {
            Some("sqs") => Ok(Self::Queue { is_fifo: arn.ends_with(".fifo") }),
            Some("kinesis") => Ok(Self::Kinesis),
            Some("dynamodb") => Ok(Self::DynamoDb),
            Some("kafka") => Ok(Self::Kafka),
            Some("mq") => Ok(Self::Mq),
            Some("rds") => Ok(Self::DocumentDb),
            _ => invalid("Unrecognized event source."),
        }
    }

    /// The batch size of a mapping that names none, and the largest.
    fn batch_sizes(self) -> (u32, u32) {
        match self {
            Self::Queue { is_fifo: true } => (10, 10),
            Self::Queue { is_fifo: false } => (10, 10_000),
            Self::Kinesis | Self::DynamoDb | Self::Kafka | Self::Mq | Self::DocumentDb => (100, 10_000),
        }
    }

    fn is_stream(self) -> bool {
        matches!(self, Self::Kinesis | Self::DynamoDb)
    }
}

fn check_start(source: Source, request: &CreateEventSourceMappingRequest) -> Result<(), Error> {
    let start = request.starting_position.as_deref();
    match (source, start) {
        (Source::Kinesis | Source::DynamoDb, None) => invalid(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must \
             not be null.",
        ),
        (Source::DynamoDb, Some("AT_TIMESTAMP")) => invalid(format!(
            "Unsupported starting position for arn type: {}",
            request.event_source_arn.as_deref().unwrap_or_default()
        )),
        _ => Ok(()),
    }
}

fn check_batch(source: Source, size: u32, window: u32) -> Result<(), Error> {
    let (_, most) = source.batch_sizes();
    if !(1..=most).contains(&size) {
        return invalid(format!("BatchSize must be between 1 and {most} for this event source."));
    }
    if matches!(source, Source::Queue { .. }) && size > 10 && window == 0 {
        return invalid(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        );
    }
    Ok(())
}

fn check_filters(criteria: Option<&Value>) -> Result<(), Error> {
    let filters = criteria.and_then(|criteria| criteria.get("Filters")).and_then(Value::as_array);
    for filter in filters.into_iter().flatten() {
        let pattern = filter.get("Pattern").and_then(Value::as_str).unwrap_or_default();
        let parsed: Option<Value> = serde_json::from_str(pattern).ok();
        if !parsed.is_some_and(|parsed| parsed.is_object()) {
            return invalid("Invalid filter pattern definition.");
        }
    }
    Ok(())
}

fn check_destination(source: Option<Source>, destination: Option<&DestinationConfig>) -> Result<(), Error> {
    let unsupported = destination.is_some_and(|config| config.on_success.is_some())
        || (matches!(source, Some(Source::Queue { .. }))
            && destination.is_some_and(|config| config.on_failure.is_some()));
    if unsupported {
        return invalid("Unsupported DestinationConfig parameter for given event source mapping type.");
    }
    Ok(())
}

/// The places a mapping's records come from; two mappings of one function may share none.
fn endpoints(request: &CreateEventSourceMappingRequest) -> Vec<String> {
    if let Some(arn) = &request.event_source_arn {
        return vec![arn.clone()];
    }
    let endpoints = request.self_managed_event_source.as_ref().and_then(|source| source.endpoints.as_ref());
    let mut servers: Vec<String> = endpoints.into_iter().flat_map(|map| map.values().flatten().cloned()).collect();
    servers.sort();
    servers
}

fn pair(request: &CreateEventSourceMappingRequest, function: &str) -> String {
    let place = (endpoints(request), request.topics.clone(), function);
    hex::encode(digest(&SHA256, serde_json::to_string(&place).unwrap_or_default().as_bytes()))
}

fn conflict(source: Source, request: &CreateEventSourceMappingRequest, arn: &FunctionArn, uuid: &str) -> Error {
    let from = endpoints(request).join(",");
    let end = format!("Please update or delete the existing mapping with UUID {uuid}");
    Error::ResourceConflict(match source {
        Source::Queue { .. } => format!(
            "An event source mapping with SQS arn (\" {from} \") and function (\" {} \") already exists. {end}",
            arn.name
        ),
        Source::Kafka => format!(
            "An event source mapping with event source (\"{from}\"), function (\"{arn}\"), topics (\"{}\") already \
             exists. {end}",
            request.topics.clone().unwrap_or_default().join(",")
        ),
        Source::Kinesis | Source::DynamoDb | Source::Mq | Source::DocumentDb => format!(
            "The event source arn (\" {from} \") and function (\" {} \") provided mapping already exists. {end}",
            arn.name
        ),
    })
}

fn wanted(is_enabled: bool) -> String {
    if is_enabled { "Enabled".to_owned() } else { "Disabled".to_owned() }
}

impl Registry {
    /// The ARN that a mapping's function is known by, qualifier included.
    fn mapped(&self, caller: &Caller, name: &str) -> Result<(FunctionArn, String), Error> {
        let absent = || Error::InvalidParameterValue("Function does not exist".to_owned());
        let target = self.locate(caller, "CreateEventSourceMapping", name, None)?;
        let function = self.snapshot.functions.get(&target.arn).ok_or_else(absent)?;
        function.qualified(target.qualifier.as_ref()).ok_or_else(absent)?;
        let arn = target.qualified_arn();
        Ok((target.arn, arn))
    }

    /// AWS's `CreateEventSourceMapping`.
    pub async fn create_event_source_mapping(
        &self,
        caller: &Caller,
        request: CreateEventSourceMappingRequest,
    ) -> Result<EventSourceMappingConfiguration, Error> {
        check_destination(None, request.destination_config.as_ref())?;
        let source = Source::of(&request)?;
        let batch_size = request.batch_size.unwrap_or(source.batch_sizes().0);
        let window = request.maximum_batching_window_in_seconds.unwrap_or(0);
        check_start(source, &request)?;
        check_batch(source, batch_size, window)?;
        check_filters(request.filter_criteria.as_ref())?;
        let (function, arn) = self.mapped(caller, &request.function_name)?;
        check_destination(Some(source), request.destination_config.as_ref())?;
        let tags = request.tags.clone().unwrap_or_default();
        super::tags::check(&tags)?;

        let uuid = Uuid::new_v4().to_string();
        let pair = key::pair(&caller.account, &pair(&request, &arn));
        let configuration = self.fresh(caller, source, request.clone(), &uuid, arn, batch_size);
        let mapping = Mapping { configuration: configuration.clone(), tags, pair: pair.clone() };
        let place = Write { key: pair.clone(), expect: Expect::Absent, value: Some(uuid.clone().into()) };
        let key = key::mapping(&caller.account, &uuid);
        let write = Write { key, expect: Expect::Absent, value: Some(document(&mapping)?) };
        match self.commit(vec![place, write]).await {
            Ok(()) => Ok(EventSourceMappingConfiguration { state: Some("Creating".to_owned()), ..configuration }),
            Err(Error::Store(lambent_store::Error::Conflict { .. })) => {
                let taken = self.catalog.get(&pair).await?.map(|document| document.value).unwrap_or_default();
                Err(conflict(source, &request, &function, &String::from_utf8_lossy(&taken)))
            }
            Err(error) => Err(error),
        }
    }

    fn fresh(
        &self,
        caller: &Caller,
        source: Source,
        request: CreateEventSourceMappingRequest,
        uuid: &str,
        function_arn: String,
        batch_size: u32,
    ) -> EventSourceMappingConfiguration {
        let for_streams = source.is_stream();
        EventSourceMappingConfiguration {
            uuid: Some(uuid.to_owned()),
            starting_position: request.starting_position,
            starting_position_timestamp: request.starting_position_timestamp,
            batch_size: Some(batch_size),
            maximum_batching_window_in_seconds: Some(request.maximum_batching_window_in_seconds.unwrap_or(0)),
            parallelization_factor: request.parallelization_factor.or(for_streams.then_some(1)),
            event_source_arn: request.event_source_arn,
            filter_criteria: request.filter_criteria,
            kms_key_arn: request.kms_key_arn,
            metrics_config: request.metrics_config,
            logging_config: request.logging_config,
            scaling_config: request.scaling_config,
            function_arn: Some(function_arn),
            last_modified: Some(Epoch(self.clock.now())),
            last_processing_result: for_streams.then(|| "No records processed".to_owned()),
            state: Some(wanted(request.enabled.unwrap_or(true))),
            state_transition_reason: Some(if for_streams { "User action" } else { "USER_INITIATED" }.to_owned()),
            destination_config:
                request
                    .destination_config
                    .or(for_streams
                        .then(|| DestinationConfig { on_success: None, on_failure: Some(OnFailure::default()) })),
            topics: request.topics,
            queues: request.queues,
            source_access_configurations: request.source_access_configurations,
            self_managed_event_source: request.self_managed_event_source,
            maximum_record_age_in_seconds: request.maximum_record_age_in_seconds.or(for_streams.then_some(-1)),
            bisect_batch_on_function_error: request.bisect_batch_on_function_error.or(for_streams.then_some(false)),
            maximum_retry_attempts: request.maximum_retry_attempts.or(for_streams.then_some(-1)),
            tumbling_window_in_seconds: request.tumbling_window_in_seconds.or(for_streams.then_some(0)),
            function_response_types: Some(request.function_response_types.unwrap_or_default()),
            amazon_managed_kafka_event_source_config: request.amazon_managed_kafka_event_source_config,
            self_managed_kafka_event_source_config: request.self_managed_kafka_event_source_config,
            document_db_event_source_config: request.document_db_event_source_config,
            event_source_mapping_arn: Some(format!(
                "arn:aws:lambda:{}:{}:event-source-mapping:{uuid}",
                self.settings.region, caller.account
            )),
            provisioned_poller_config: request.provisioned_poller_config,
            ..EventSourceMappingConfiguration::default()
        }
    }

    /// AWS's `GetEventSourceMapping`.
    pub async fn get_event_source_mapping(
        &self,
        caller: &Caller,
        request: GetEventSourceMappingRequest,
    ) -> Result<EventSourceMappingConfiguration, Error> {
        let key = key::mapping(&caller.account, &request.uuid);
        Ok(self.snapshot.mappings.get(&key).ok_or_else(gone)?.value.configuration.clone())
    }

    /// AWS's `UpdateEventSourceMapping`.
    pub async fn update_event_source_mapping(
        &self,
        caller: &Caller,
        request: UpdateEventSourceMappingRequest,
    ) -> Result<EventSourceMappingConfiguration, Error> {
        let key = key::mapping(&caller.account, &request.uuid);
        let kept = self.snapshot.mappings.get(&key).ok_or_else(gone)?;
        let function = match &request.function_name {
            Some(name) => Some(self.mapped(caller, name)?.1),
            None => None,
        };
        if function.is_some() && function != kept.value.configuration.function_arn {
            // The place that keeps two mappings apart would have to move with it.
            return self.repoint(caller, &request, function).await;
        }
        let now = self.clock.now();
        let before = kept.value.configuration.state.clone();
        let after = self
            .revise(&self.snapshot.mappings, &key, gone, |mapping| {
                apply(&mut mapping.configuration, &request)?;
                mapping.configuration.last_modified = Some(Epoch(now));
                Ok(mapping.configuration.clone())
            })
            .await?;
        let state = match (before.as_deref(), after.state.as_deref()) {
            (Some("Disabled"), Some("Enabled")) => "Enabling",
            (Some("Enabled"), Some("Disabled")) => "Disabling",
            _ => "Updating",
        };
        Ok(EventSourceMappingConfiguration { state: Some(state.to_owned()), ..after })
    }

    /// Gives a mapping another function.
    async fn repoint(
        &self,
        caller: &Caller,
        request: &UpdateEventSourceMappingRequest,
        function: Option<String>,
    ) -> Result<EventSourceMappingConfiguration, Error> {
        let key = key::mapping(&caller.account, &request.uuid);
        let kept = self.snapshot.mappings.get(&key).ok_or_else(gone)?;
        let mut mapping = kept.value.clone();
        apply(&mut mapping.configuration, request)?;
        mapping.configuration.function_arn = function.clone();
        mapping.configuration.last_modified = Some(Epoch(self.clock.now()));
        let as_new = CreateEventSourceMappingRequest {
            event_source_arn: mapping.configuration.event_source_arn.clone(),
            self_managed_event_source: mapping.configuration.self_managed_event_source.clone(),
            topics: mapping.configuration.topics.clone(),
            ..CreateEventSourceMappingRequest::default()
        };
        let pair = key::pair(&caller.account, &pair(&as_new, function.as_deref().unwrap_or_default()));
        let old = std::mem::replace(&mut mapping.pair, pair.clone());
        let writes = vec![
            Write { key: pair, expect: Expect::Absent, value: Some(request.uuid.clone().into()) },
            Write { key: old, expect: Expect::Anything, value: None },
            Write { key, expect: Expect::Revision(kept.revision), value: Some(document(&mapping)?) },
        ];
        match self.commit(writes).await {
            Ok(()) => {
                Ok(EventSourceMappingConfiguration { state: Some("Updating".to_owned()), ..mapping.configuration })
            }
            Err(Error::Store(lambent_store::Error::Conflict { .. })) => Err(Error::ResourceConflict(
                "The event source and function are joined by another mapping, or this one was just changed.".to_owned(),
            )),
            Err(error) => Err(error),
        }
    }

    /// AWS's `DeleteEventSourceMapping`.
    pub async fn delete_event_source_mapping(
        &self,
        caller: &Caller,
        request: DeleteEventSourceMappingRequest,
    ) -> Result<EventSourceMappingConfiguration, Error> {
        let key = key::mapping(&caller.account, &request.uuid);
        let kept = self.snapshot.mappings.get(&key).ok_or_else(gone)?;
        let writes = vec![
            Write { key: kept.value.pair.clone(), expect: Expect::Anything, value: None },
            Write { key, expect: Expect::Revision(kept.revision), value: None },
        ];
        match self.commit(writes).await {
            Ok(()) => {
                let configuration = kept.value.configuration.clone();
                Ok(EventSourceMappingConfiguration { state: Some("Deleting".to_owned()), ..configuration })
            }
            Err(Error::Store(lambent_store::Error::Conflict { .. })) => {
                Err(Error::ResourceInUse("The mapping is being changed. Try again.".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// AWS's `ListEventSourceMappings`.
    pub async fn list_event_source_mappings(
        &self,
        caller: &Caller,
        request: ListEventSourceMappingsRequest,
    ) -> Result<ListEventSourceMappingsResponse, Error> {
        let function = match &request.function_name {
            Some(name) => Some(self.locate(caller, "ListEventSourceMappings", name, None)?.qualified_arn()),
            None => None,
        };
        let own = key::mapping(&caller.account, "");
        let mut items = Vec::new();
        for kept in self.snapshot.mappings.all() {
            let configuration = &kept.value.configuration;
            let uuid = configuration.uuid.clone().unwrap_or_default();
            let fits = self.snapshot.mappings.get(&format!("{own}{uuid}")).is_some()
                && (function.is_none() || configuration.function_arn == function)
                && (request.event_source_arn.is_none() || configuration.event_source_arn == request.event_source_arn);
            if fits {
                items.push((uuid, configuration.clone()));
            }
        }
        let (mappings, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListEventSourceMappingsResponse { event_source_mappings: Some(mappings), next_marker })
    }
}

/// Puts what an update names into a mapping.
fn apply(
    mapping: &mut EventSourceMappingConfiguration,
    request: &UpdateEventSourceMappingRequest,
) -> Result<(), Error> {
    let as_new = CreateEventSourceMappingRequest {
        event_source_arn: mapping.event_source_arn.clone(),
        self_managed_event_source: mapping.self_managed_event_source.clone(),
        source_access_configurations: Some(Vec::new()),
        ..CreateEventSourceMappingRequest::default()
    };
    let source = Source::of(&as_new)?;
    macro_rules! take {
        ($($member:ident),* $(,)?) => {
            $(if request.$member.is_some() { mapping.$member.clone_from(&request.$member); })*
        };
    }
    take!(
        batch_size,
        filter_criteria,
        kms_key_arn,
        metrics_config,
        logging_config,
        scaling_config,
        maximum_batching_window_in_seconds,
        parallelization_factor,
        destination_config,
        maximum_record_age_in_seconds,
        bisect_batch_on_function_error,
        maximum_retry_attempts,
        tumbling_window_in_seconds,
        source_access_configurations,
        function_response_types,
        amazon_managed_kafka_event_source_config,
        self_managed_kafka_event_source_config,
        document_db_event_source_config,
        provisioned_poller_config,
    );
    if let Some(is_enabled) = request.enabled {
        mapping.state = Some(wanted(is_enabled));
    }
    check_filters(request.filter_criteria.as_ref())?;
    check_destination(Some(source), request.destination_config.as_ref())?;
    let window = mapping.maximum_batching_window_in_seconds.unwrap_or(0);
    check_batch(source, mapping.batch_size.unwrap_or(source.batch_sizes().0), window)
}
