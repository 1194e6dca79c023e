//! What every back end of the store promises, tested the same way for each.
//!
//! A back end is a [`Backend`]: something that opens its ports in a directory. The suites take any; a new back end adds
//! itself to [`each_backend!`] and to the child of the crash tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod blobs;
mod catalog;
mod crash;
mod events;
mod logs;
mod records;

use std::path::Path;
use std::sync::Arc;

use lambent_store::queue::Bounds;
use lambent_store::{Blobs, Catalog, Embedded, EventQueue, Logs, Records, records as kept};

/// A way to keep state.
pub trait Backend {
    /// Its name, by which a child process finds it.
    const NAME: &'static str;

    /// Opens what is kept in `dir`; dropping the ports closes it.
    fn open(dir: &Path) -> Ports {
        Self::open_bounded(dir, Bounds::default(), kept::Bounds::default())
    }

    /// As [`Backend::open`], with bounds for events and records.
    fn open_bounded(dir: &Path, events: Bounds, records: kept::Bounds) -> Ports;

    /// What is left of `dir` when its user is killed at this instant: a copy, so that the user need not be.
    fn crash(dir: &Path) -> tempfile::TempDir;
}

/// The ports of a back end.
pub struct Ports {
    /// Documents.
    pub catalog: Arc<dyn Catalog>,
    /// Content.
    pub blobs: Arc<dyn Blobs>,
    /// Logs.
    pub logs: Arc<dyn Logs>,
    /// Events.
    pub events: Arc<dyn EventQueue>,
    /// Records.
    pub records: Arc<dyn Records>,
    /// Goes after the ports: whatever holds the back end open.
    pub _guard: Option<Box<dyn std::any::Any>>,
}

/// SQLite and files.
pub struct OneMachine;

impl Backend for OneMachine {
    const NAME: &'static str = "one-machine";

    fn open_bounded(dir: &Path, events: Bounds, records: kept::Bounds) -> Ports {
        let store = Embedded::open_bounded(&dir.join("data"), events, records).unwrap();
        Ports {
            catalog: store.catalog.clone(),
            blobs: store.blobs.clone(),
            logs: store.logs.clone(),
            events: store.events.clone(),
            records: store.records.clone(),
            _guard: Some(Box::new(store)),
        }
    }

    /// What a process has handed to the kernel outlives it; nothing else does. Nobody writes while a test copies.
    fn crash(dir: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("data")).unwrap();
        for file in ["events.db", "events.db-wal", "records.db", "records.db-wal"] {
            std::fs::copy(dir.join("data").join(file), copy.path().join("data").join(file)).unwrap();
        }
        copy
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
