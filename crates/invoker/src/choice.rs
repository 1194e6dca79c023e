//! What is left to chance: which of an alias's two versions a call goes to, and the ids of new traces. From one seed.

use std::sync::{Arc, Mutex, PoisonError};

use lambent_model::FunctionVersion;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::trace::Fresh;

/// A seeded source of choices.
#[derive(Debug)]
pub(crate) struct Choice(Mutex<SmallRng>);

impl Choice {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed)))
    }

    /// `main`, or with the probability of its weight `additional`.
    pub(crate) fn version(
        &self,
        main: Arc<FunctionVersion>,
        additional: Option<(Arc<FunctionVersion>, f64)>,
    ) -> Arc<FunctionVersion> {
        let Some((other, weight)) = additional else { return main };
        if self.draw(|rng| rng.random::<f64>()) < weight { other } else { main }
    }

    /// Bits for a new trace.
    pub(crate) fn trace(&self) -> Fresh {
        self.draw(|rng| Fresh { root: rng.random(), parent: rng.random() })
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
