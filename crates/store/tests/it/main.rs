//! What every back end of the store promises, tested the same way for each.
//!
//! A back end is a [`Backend`]: something that opens its ports in a directory. The suites take any; a new back end adds
//! itself to [`each_backend!`] and to the child of the crash tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod blobs;
mod catalog;
mod crash;
mod logs;

use std::path::Path;
use std::sync::Arc;

use lambent_store::{Blobs, Catalog, Embedded, Logs};

/// A way to keep state.
pub trait Backend {
    /// Its name, by which a child process finds it.
    const NAME: &'static str;

    /// Opens what is kept in `dir`; dropping the ports closes it.
    fn open(dir: &Path) -> Ports;
}

/// The ports of a back end.
pub struct Ports {
    /// Documents.
    pub catalog: Arc<dyn Catalog>,
    /// Content.
    pub blobs: Arc<dyn Blobs>,
    /// Logs.
    pub logs: Arc<dyn Logs>,
    /// Goes after the ports: whatever holds the back end open.
    pub _guard: Option<Box<dyn std::any::Any>>,
}

/// SQLite and files.
pub struct OneMachine;

impl Backend for OneMachine {
    const NAME: &'static str = "one-machine";

    fn open(dir: &Path) -> Ports {
        let store = Embedded::open(&dir.join("data")).unwrap();
        Ports {
            catalog: store.catalog.clone(),
            blobs: store.blobs.clone(),
            logs: store.logs.clone(),
            _guard: Some(Box::new(store)),
        }
    }
}

/// Runs the named cases of a suite for each back end.
#[macro_export]
macro_rules! each_backend {
    ($($case:ident),* $(,)?) => {
        mod one_machine {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case::<$crate::OneMachine>().await;
                }
            )*
        }
    };
}
