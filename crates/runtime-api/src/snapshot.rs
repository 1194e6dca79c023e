//! `POST …/restore/snapshot` and `…/restore/unsafe`: a runtime hands over a snapshot of itself, or says why there can be none.
//!
//! Ours alone: AWS takes its snapshots from outside. Nothing here looks into a snapshot; it is the function's own, for containers of
//! the same version, and is only kept. Asked for once a container, by its owner ([`crate::RuntimeApi::keep_snapshot`]); nobody else is listened to.

use std::fs::File;
use std::io;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

/// What came of asking a runtime for its snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// It is in the file.
    Taken {
        /// Its size.
        bytes: u64,
    },
    /// There can be none, for this reason.
    Unsafe(String),
}

/// Where a snapshot goes.
#[derive(Debug)]
pub(crate) struct Sink {
    file: File,
    most: u64,
    outcome: oneshot::Sender<Snapshot>,
}

impl Sink {
    pub(crate) fn new(file: File, most: u64) -> (Self, oneshot::Receiver<Snapshot>) {
        let (outcome, receiver) = oneshot::channel();
        (Self { file, most, outcome }, receiver)
    }

    /// Keeps what arrives; false where that cannot be.
    pub(crate) async fn fill(self, body: &mut Incoming) -> bool {
        let Self { file, most, outcome } = self;
        let kept = keep(file, most, body).await;
        let taken = kept.is_ok();
        // An owner that does not wait any more ends the container.
        let _ = outcome.send(match kept {
            Ok(bytes) => Snapshot::Taken { bytes },
            Err(reason) => Snapshot::Unsafe(reason),
        });
        taken
    }

    /// There can be none.
    pub(crate) fn refuse(self, reason: String) {
        let _ = self.outcome.send(Snapshot::Unsafe(reason));
    }
}

async fn keep(file: File, most: u64, body: &mut Incoming) -> Result<u64, String> {
    let failed = |error: io::Error| format!("its snapshot could not be kept: {error}");
    let mut file = tokio::fs::File::from_std(file);
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "its snapshot broke off".to_owned())?;
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len() as u64;
        if bytes > most {
            return Err(format!("its snapshot would be larger than {most} bytes"));
        }
        file.write_all(&data).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok(bytes)
}
