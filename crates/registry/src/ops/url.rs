//! Function URL configurations. What serves them is the gateway's.

use lambent_model::{FunctionArn, Qualifier};

use crate::locate::Target;
use crate::page::page;
use crate::record::{LATEST, Url};
use crate::shape::*;
use crate::{Caller, Error, Registry};

const PAGE: usize = 50;

fn no_function() -> Error {
    Error::ResourceNotFound("Function does not exist".to_owned())
}

fn no_url() -> Error {
    Error::ResourceNotFound("The resource you requested does not exist.".to_owned())
}

/// The name a URL is kept under: the alias, or `$LATEST` for the function's own.
fn place(qualifier: Option<&Qualifier>) -> Result<String, Error> {
    match qualifier {
        None => Ok(LATEST.to_owned()),
        Some(Qualifier::Alias(name)) => Ok(name.to_string()),
        Some(Qualifier::Version(version)) => Err(Error::Validation(format!(
            "1 validation error detected: Value '{version}' at 'qualifier' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: ((?!^\\d+$)^[0-9a-zA-Z-_]+$)"
        ))),
    }
}

/// 32 letters and digits, the first label of a host name.
fn fresh_id() -> Result<String, Error> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|source| crate::code::internal("making an id", source))?;
    Ok(bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 32))).map(|byte| char::from(*byte)).collect())
}

impl Registry {
    fn url_config(&self, arn: &FunctionArn, place: &str, url: &Url) -> FunctionUrlConfig {
        let settings = &self.settings;
        FunctionUrlConfig {
            function_url: settings.function_url.replace("{id}", &url.id).replace("{region}", settings.region.as_str()),
            function_arn: if place == LATEST { arn.to_string() } else { arn.qualified(place) },
            creation_time: url.created.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            last_modified_time: Some(url.modified.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()),
            cors: url.cors.clone(),
            auth_type: url.auth_type,
            invoke_mode: Some(url.invoke_mode),
        }
    }

    /// AWS's `CreateFunctionUrlConfig`.
    pub async fn create_function_url_config(
        &self,
        caller: &Caller,
        request: CreateFunctionUrlConfigRequest,
    ) -> Result<FunctionUrlConfig, Error> {
        let Target { arn, qualifier } =
            self.locate(caller, "CreateFunctionUrlConfig", &request.function_name, request.qualifier.as_deref())?;
        let place = place(qualifier.as_ref())?;
        let now = self.clock.now();
        let id = fresh_id()?;
        self.change_or(&arn, no_function, |_, draft| {
            if draft.head.latest.settings.per_tenant {
                return Err(Error::InvalidParameterValue(
                    "Function URLs are not supported for functions with tenancy configuration.".to_owned(),
                ));
            }
            if draft.head.urls.contains_key(&place) {
                let arn = if place == LATEST { arn.to_string() } else { arn.qualified(&place) };
                return Err(Error::ResourceConflict(format!(
                    "Failed to create function url config for [functionArn = {arn}]. Error message:  FunctionUrlConfig \
                     exists for this Lambda function"
                )));
            }
            if place != LATEST && !draft.head.aliases.contains_key(&place) {
                return Err(no_function());
            }
            let url = Url {
                id: id.clone(),
                auth_type: request.auth_type,
                cors: request.cors.clone(),
                invoke_mode: request.invoke_mode.unwrap_or_default(),
                created: now,
                modified: now,
            };
            let config = self.url_config(&arn, &place, &url);
            draft.head.urls.insert(place.clone(), url);
            Ok(FunctionUrlConfig { last_modified_time: None, invoke_mode: request.invoke_mode, ..config })
        })
        .await
    }

    /// AWS's `GetFunctionUrlConfig`.
    pub async fn get_function_url_config(
        &self,
        caller: &Caller,
        request: GetFunctionUrlConfigRequest,
    ) -> Result<FunctionUrlConfig, Error> {
        let Target { arn, qualifier } =
            self.locate(caller, "GetFunctionUrlConfig", &request.function_name, request.qualifier.as_deref())?;
        let place = place(qualifier.as_ref())?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(no_url)?;
        let url = function.head.urls.get(&place).ok_or_else(no_url)?;
        Ok(self.url_config(&arn, &place, url))
    }

    /// AWS's `UpdateFunctionUrlConfig`. The URL itself stays as it is.
    pub async fn update_function_url_config(
        &self,
        caller: &Caller,
        request: UpdateFunctionUrlConfigRequest,
    ) -> Result<FunctionUrlConfig, Error> {
        let Target { arn, qualifier } =
            self.locate(caller, "UpdateFunctionUrlConfig", &request.function_name, request.qualifier.as_deref())?;
        let place = place(qualifier.as_ref())?;
        let now = self.clock.now();
        self.change_or(&arn, no_function, |_, draft| {
            if place != LATEST && !draft.head.aliases.contains_key(&place) {
                return Err(no_function());
            }
            let url = draft.head.urls.get_mut(&place).ok_or_else(no_url)?;
            url.auth_type = request.auth_type.unwrap_or(url.auth_type);
            url.invoke_mode = request.invoke_mode.unwrap_or(url.invoke_mode);
            if request.cors.is_some() {
                url.cors.clone_from(&request.cors);
            }
            url.modified = now;
            Ok(FunctionUrlConfig { invoke_mode: request.invoke_mode, ..self.url_config(&arn, &place, url) })
        })
        .await
    }

    /// AWS's `DeleteFunctionUrlConfig`.
    pub async fn delete_function_url_config(
        &self,
        caller: &Caller,
        request: DeleteFunctionUrlConfigRequest,
    ) -> Result<(), Error> {
        let Target { arn, qualifier } =
            self.locate(caller, "DeleteFunctionUrlConfig", &request.function_name, request.qualifier.as_deref())?;
        let place = place(qualifier.as_ref())?;
        self.change_or(&arn, no_url, |_, draft| draft.head.urls.remove(&place).map(drop).ok_or_else(no_url)).await
    }

    /// AWS's `ListFunctionUrlConfigs`.
    pub async fn list_function_url_configs(
        &self,
        caller: &Caller,
        request: ListFunctionUrlConfigsRequest,
    ) -> Result<ListFunctionUrlConfigsResponse, Error> {
        let arn = self.locate_whole(caller, "ListFunctionUrlConfigs", &request.function_name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(no_function)?;
        let urls = function.head.urls.iter();
        let items = urls.map(|(place, url)| (place.clone(), self.url_config(&arn, place, url))).collect();
        let (function_url_configs, next_marker) = page(items, request.marker.as_deref(), request.max_items, PAGE);
        Ok(ListFunctionUrlConfigsResponse { function_url_configs, next_marker })
    }
}
