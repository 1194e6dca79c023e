//! How requests of a function are told apart: a setting of Lambent's own, kept with the function and gone with it.

use std::sync::Arc;

use lambent_model::idempotency::Idempotency;

use crate::locate::missing;
use crate::{Caller, Error, Registry};

impl Registry {
    /// Sets how requests of a function, all of its versions, are told apart.
    pub async fn put_idempotency(&self, caller: &Caller, name: &str, setting: Idempotency) -> Result<(), Error> {
        setting.check().map_err(|error| Error::InvalidParameterValue(error.to_string()))?;
        let arn = self.locate_whole(caller, "PutFunctionIdempotency", name)?;
        let setting = Arc::new(setting);
        self.change(&arn, |_, draft| {
            draft.head.idempotency = Some(setting.clone());
            Ok(())
        })
        .await
    }

    /// What was set; none: nothing.
    pub fn idempotency(&self, caller: &Caller, name: &str) -> Result<Option<Arc<Idempotency>>, Error> {
        let arn = self.locate_whole(caller, "GetFunctionIdempotency", name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        Ok(function.head.idempotency.clone())
    }

    /// Each request runs again.
    pub async fn delete_idempotency(&self, caller: &Caller, name: &str) -> Result<(), Error> {
        let arn = self.locate_whole(caller, "DeleteFunctionIdempotency", name)?;
        self.change(&arn, |_, draft| {
            draft.head.idempotency = None;
            Ok(())
        })
        .await
    }
}
