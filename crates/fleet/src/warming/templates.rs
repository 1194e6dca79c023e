//! Templates: one loaded Python of each version, to be forked into instances.
//!
//! Made when the first instance of its kind is, in the background, and again when it should not be forked any more or has died. Where one
//! cannot be made (an interpreter without `ctypes`), runtimes are started and wait instead, and it is tried again much later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lambent_model::function::Runtime;
use lambent_sandbox::{Mount, Template, TemplateSpec};
use tokio::time::Instant;

use crate::environment::{self, RUNTIME};
use crate::fleet::Inner;

/// How long a version whose template could not be made does without.
const RETRY: Duration = Duration::from_secs(60);

/// The templates there are; as many as interpreters at most.
#[derive(Default)]
pub(crate) struct Templates {
    kept: Mutex<HashMap<Runtime, Arc<dyn Template>>>,
    /// When those that failed are tried again. Held while one is made, so that nobody makes another.
    making: tokio::sync::Mutex<HashMap<Runtime, Instant>>,
}

impl Templates {
    fn kept(&self) -> MutexGuard<'_, HashMap<Runtime, Arc<dyn Template>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that is there. Waits for nothing.
    pub(crate) fn there(&self, runtime: &Runtime) -> Option<Arc<dyn Template>> {
        let mut kept = self.kept();
        match kept.get(runtime) {
            Some(template) if template.usable() => Some(Arc::clone(template)),
            Some(_spent) => {
                kept.remove(runtime);
                None
            }
            None => None,
        }
    }

    /// The one that is there, else one that is made now; none where there can be none.
    pub(crate) async fn of(&self, fleet: &Inner, runtime: &Runtime) -> Option<Arc<dyn Template>> {
        if !matches!(runtime, Runtime::Python { .. }) {
            return None;
        }
        let mut failed = self.making.lock().await;
        if let Some(template) = self.there(runtime) {
            return Some(template);
        }
        if failed.get(runtime).is_some_and(|again_at| Instant::now() < *again_at) {
            return None;
        }
        let interpreter = fleet.interpreters.of(runtime)?;
        let bootstraps = Mount { source: fleet.bootstraps.directory.clone(), target: RUNTIME.into() };
        let spec = TemplateSpec {
            argv: environment::interpreter_command(runtime, interpreter)?,
            env: environment::of_waiting(runtime),
            mounts: std::iter::once(bootstraps).chain(interpreter.mount.clone()).collect(),
        };
        match fleet.sandbox.template(spec).await {
            Ok(template) => {
                failed.remove(runtime);
                // Whoever closed meanwhile has looked already.
                if !fleet.closing.is_cancelled() {
                    self.kept().insert(runtime.clone(), Arc::clone(&template));
                }
                Some(template)
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%runtime, error, "no template can be made; runtimes are started one by one");
                failed.insert(runtime.clone(), Instant::now() + RETRY);
                None
            }
        }
    }

    /// Forgets one that failed to be forked.
    pub(super) fn forget(&self, runtime: &Runtime, template: &Arc<dyn Template>) {
        let mut kept = self.kept();
        if kept.get(runtime).is_some_and(|there| Arc::ptr_eq(there, template)) {
            kept.remove(runtime);
        }
    }

    /// Ends all of them.
    pub(super) fn close(&self) {
        self.kept().clear();
    }
}
