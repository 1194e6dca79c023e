//! Which calls of a function belong together: a setting of Lambent's own, kept with the function and gone with it.

use std::sync::Arc;

use lambent_model::affinity::Affinity;

use crate::locate::missing;
use crate::{Caller, Error, Registry};

impl Registry {
    /// Sets, for all versions of a function, or removes which of its calls belong together.
    pub async fn set_affinity(&self, caller: &Caller, name: &str, setting: Option<Affinity>) -> Result<(), Error> {
        let operation = if setting.is_some() { "PutFunctionAffinity" } else { "DeleteFunctionAffinity" };
        let arn = self.locate_whole(caller, operation, name)?;
        let setting = setting.map(Arc::new);
        self.change(&arn, |_, draft| {
            draft.head.affinity = setting.clone();
            Ok(())
        })
        .await
    }

    /// What was set; none: nothing.
    pub fn affinity(&self, caller: &Caller, name: &str) -> Result<Option<Arc<Affinity>>, Error> {
        let arn = self.locate_whole(caller, "GetFunctionAffinity", name)?;
        let function = self.snapshot.functions.get(&arn).ok_or_else(|| missing(&arn, None))?;
        Ok(function.head.affinity.clone())
    }
}
