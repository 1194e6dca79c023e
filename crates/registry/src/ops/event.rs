//! Configuration of asynchronous invocation. What acts on it is the invoker's dispatcher.

use std::time::Duration;

use lambent_model::destination::{self, Destination};
use lambent_model::{FunctionArn, Qualifier, limits};

use crate::locate::{Target, missing};
use crate::page::page;
use crate::record::{EventInvoke, LATEST};
use crate::registry::EventSettings;
use crate::shape::*;
use crate::snapshot::Function;
use crate::{Caller, Error, Registry};

const PAGE: usize = 50;

fn no_function() -> Error {
    Error::ResourceNotFound("The function doesn't exist.".to_owned())
}

fn place(qualifier: Option<&Qualifier>) -> String {
    qualifier.map_or_else(|| LATEST.to_owned(), ToString::to_string)
}

fn none_at(arn: &FunctionArn, place: &str) -> Error {
    let arn = arn.qualified(place);
    Error::ResourceNotFound(format!("The function {arn} doesn't have an EventInvokeConfig"))
}

fn shown(arn: &FunctionArn, place: &str, kept: &EventInvoke) -> FunctionEventInvokeConfig {
    FunctionEventInvokeConfig {
        last_modified: Epoch(kept.modified),
        function_arn: arn.qualified(place),
        maximum_retry_attempts: kept.retries,
        maximum_event_age_in_seconds: kept.age_secs,
        destination_config: DestinationConfig {
            on_success: Some(OnSuccess { destination: kept.on_success.clone() }),
            on_failure: Some(OnFailure { destination: kept.on_failure.clone() }),
        },
    }
}

/// Where successes and failures go; an empty destination is none.
fn destinations(config: &DestinationConfig) -> (Option<String>, Option<String>) {
    let success = config.on_success.as_ref().and_then(|target| target.destination.clone());
    let failure = config.on_failure.as_ref().and_then(|target| target.destination.clone());
    (success.filter(|text| !text.is_empty()), failure.filter(|text| !text.is_empty()))
}

fn says_something(request: &PutFunctionEventInvokeConfigRequest) -> Result<(), Error> {
    let error_handling = request.maximum_retry_attempts.or(request.maximum_event_age_in_seconds);
    if error_handling.is_none() && request.destination_config.is_none() {
        let text = "You must specify at least one of error handling or destination setting.";
        return Err(Error::InvalidParameterValue(text.to_owned()));
    }
    Ok(())
}

/// Destinations in SNS, EventBridge and S3, wherever they are asked for.
pub(crate) const NOT_BUILT: Error = Error::NotBuilt("A destination in SNS, EventBridge or S3");

impl Registry {
    /// Whether the destinations of `function` can be: what AWS says, word for word, to those that cannot.
    fn check_destinations(&self, function: &FunctionArn, config: &DestinationConfig) -> Result<(), Error> {
        let (success, failure) = destinations(config);
        for text in failure.iter().chain(&success) {
            let invalid = |text: String| Err(Error::InvalidParameterValue(text));
            match text.parse::<Destination>() {
                Ok(Destination::Function { function: other, qualifier }) => {
                    if self.resolve(&other, qualifier.as_ref()).is_err() || other.account != function.account {
                        return invalid(format!("The destination ARN {text} is invalid."));
                    }
                    if other == *function {
                        return invalid("You can't specify the function as a destination for itself.".to_owned());
                    }
                }
                Ok(Destination::Queue { account, .. } | Destination::Url { account, .. })
                    if account != function.account =>
                {
                    return invalid(format!("The destination ARN {text} is invalid."));
                }
                Ok(_) => {}
                Err(destination::Error::NotBuilt(_)) => return Err(NOT_BUILT),
                Err(destination::Error::Unknown(_)) => {
                    let part = |name: &str, target: &Option<String>| match target {
                        Some(text) => format!("{name}(destination={text})"),
                        None => "null".to_owned(),
                    };
                    return invalid(format!(
                        "The provided destination config DestinationConfig(onSuccess={}, onFailure={}) is invalid.",
                        part("OnSuccess", &success),
                        part("OnFailure", &failure)
                    ));
                }
            }
        }
        Ok(())
    }

    /// AWS's `PutFunctionEventInvokeConfig`: what is not named is unset.
    pub async fn put_function_event_invoke_config(
        &self,
        caller: &Caller,
        request: PutFunctionEventInvokeConfigRequest,
    ) -> Result<FunctionEventInvokeConfig, Error> {
        self.set_event_invoke(caller, "PutFunctionEventInvokeConfig", request, |_| Ok(EventInvoke::default())).await
    }

    /// AWS's `UpdateFunctionEventInvokeConfig`: what is not named stays.
    pub async fn update_function_event_invoke_config(
        &self,
        caller: &Caller,
        request: UpdateFunctionEventInvokeConfigRequest,
    ) -> Result<FunctionEventInvokeConfig, Error> {
        let before = |kept: Option<&EventInvoke>| kept.cloned().ok_or(());
        self.set_event_invoke(caller, "UpdateFunctionEventInvokeConfig", request, before).await
    }

    /// Sets what `request` names upon what `before` leaves; where that is an error, there is nothing to set it upon.
    async fn set_event_invoke(
        &self,
        caller: &Caller,
        action: &str,
        request: PutFunctionEventInvokeConfigRequest,
        before: impl Fn(Option<&EventInvoke>) -> Result<EventInvoke, ()>,
    ) -> Result<FunctionEventInvokeConfig, Error> {
        says_something(&request)?;
        let Target { arn, qualifier } =
            self.locate(caller, action, &request.function_name, request.qualifier.as_deref())?;
        let place = place(qualifier.as_ref());
        let now = self.clock.now();
        self.change_or(&arn, no_function, |function, draft| {
            function.qualified(qualifier.as_ref()).ok_or_else(no_function)?;
            let kept = draft.head.event_invoke.get(&place);
            let mut kept = before(kept).map_err(|()| none_at(&arn, &place))?;
            if let Some(config) = &request.destination_config {
                self.check_destinations(&arn, config)?;
                (kept.on_success, kept.on_failure) = destinations(config);
            }
            kept.retries = request.maximum_retry_attempts.or(kept.retries);
            kept.age_secs = request.maximum_event_age_in_seconds.or(kept.age_secs);
            kept.modified = now;
            let answer = shown(&arn, &place, &kept);
            draft.head.event_invoke.insert(place.clone(), kept);
            Ok(answer)
        })
        .await
    }

    /// AWS's `GetFunctionEventInvokeConfig`.
    pub async fn get_function_event_invoke_config(
        &self,
        caller: &Caller,
        request: GetFunctionEventInvokeConfigRequest,
    ) -> Result<FunctionEventInvokeConfig, Error> {
        let (name, qualifier) = (&request.function_name, request.qualifier.as_deref());
        let Target { arn, qualifier } = self.locate(caller, "GetFunctionEventInvokeConfig", name, qualifier)?;
        let place = place(qualifier.as_ref());
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| none_at(&arn, &place))?;
        let kept = function.head.event_invoke.get(&place).ok_or_else(|| none_at(&arn, &place))?;
        Ok(shown(&arn, &place, kept))
    }

    /// AWS's `DeleteFunctionEventInvokeConfig`.
    pub async fn delete_function_event_invoke_config(
        &self,
        caller: &Caller,
        request: DeleteFunctionEventInvokeConfigRequest,
    ) -> Result<(), Error> {
        let (name, qualifier) = (&request.function_name, request.qualifier.as_deref());
        let Target { arn, qualifier } = self.locate(caller, "DeleteFunctionEventInvokeConfig", name, qualifier)?;
        let place = place(qualifier.as_ref());
        let absent = || none_at(&arn, &place);
        let remove = |draft: &mut crate::registry::Draft| draft.head.event_invoke.remove(&place).map(drop);
        self.change_or(&arn, absent, |_, draft| remove(draft).ok_or_else(absent)).await
    }

    /// AWS's `ListFunctionEventInvokeConfigs`.
    pub async fn list_function_event_invoke_configs(
        &self,
        caller: &Caller,
        request: ListFunctionEventInvokeConfigsRequest,
    ) -> Result<ListFunctionEventInvokeConfigsResponse, Error> {
        let arn = self.locate_whole(caller, "ListFunctionEventInvokeConfigs", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(no_function)?;
        let kept = function.head.event_invoke.iter();
        let items = kept.map(|(place, kept)| (place.clone(), shown(&arn, place, kept))).collect();
        let (function_event_invoke_configs, next_marker) =
            page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListFunctionEventInvokeConfigsResponse { function_event_invoke_configs, next_marker })
    }

    /// What is to become of events of this function, as it is configured now. In memory, without a lock.
    pub fn event_settings(&self, arn: &FunctionArn, qualifier: Option<&Qualifier>) -> Result<EventSettings, Error> {
        let function = self.snapshot.functions.get(arn).ok_or_else(|| missing(arn, qualifier))?;
        let config = function.qualified(qualifier).ok_or_else(|| missing(arn, qualifier))?;
        Ok(settings(&function, qualifier, config.settings.dead_letter.clone()))
    }
}

fn settings(function: &Function, qualifier: Option<&Qualifier>, dead_letter: Option<String>) -> EventSettings {
    let head = &function.head;
    let kept = head.event_invoke.get(&place(qualifier)).cloned().unwrap_or_default();
    EventSettings {
        maximum_age: kept.age_secs.map_or(limits::EVENT_AGE, |age| Duration::from_secs(age.into())),
        retries: kept.retries.unwrap_or(limits::EVENT_RETRIES),
        on_success: kept.on_success,
        on_failure: kept.on_failure,
        dead_letter,
        allows_loops: head.recursive_loop.as_deref() == Some("Allow"),
        reserved_concurrency: head.reserved_concurrency,
    }
}
