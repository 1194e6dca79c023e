//! A streamed answer on its way to the caller, and a way to break it off.
//!
//! The Runtime API knows when the function breaks its own stream. That the platform ends it (a time-out, a crash) is known here, and the
//! caller must see that the answer is not whole.

use bytes::Bytes;
use lambent_runtime_api::StreamError;
use tokio::sync::{mpsc, oneshot};

/// Pieces under way; the runtime's own buffer is in front of this one.
const PIECES: usize = 4;

/// Breaks a stream off; dropping it lets the stream end by itself.
pub(super) struct Breaker(oneshot::Sender<StreamError>);

impl Breaker {
    pub(super) fn break_off(self, error: StreamError) {
        let _ = self.0.send(error);
    }
}

/// Passes `pieces` on, until their end or until it is broken off.
pub(super) fn relay(
    mut pieces: mpsc::Receiver<Result<Bytes, StreamError>>,
) -> (mpsc::Receiver<Result<Bytes, StreamError>>, Breaker) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let (breaker, mut broken) = oneshot::channel();
    tokio::spawn(async move {
        let mut breakable = true;
        loop {
            let piece = tokio::select! {
                biased;
                error = &mut broken, if breakable => match error {
                    Ok(error) => {
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                    Err(_let_go) => {
                        breakable = false;
                        continue;
                    }
                },
                piece = pieces.recv() => piece,
            };
            let piece = match piece {
                // Closed without an error: the answer is whole.
                None => return,
                // The runtime's connection also breaks when its process dies. Why it did is about to be said.
                Some(Err(error)) if breakable => Err((&mut broken).await.unwrap_or(error)),
                Some(piece) => piece,
            };
            let last = piece.is_err();
            // Where nobody listens any more the function runs on unheard.
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    (receiver, Breaker(breaker))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passes_on_and_ends() {
        let (sender, pieces) = mpsc::channel(1);
        let (mut out, breaker) = relay(pieces);
        sender.send(Ok(Bytes::from_static(b"a"))).await.unwrap();
        assert_eq!(out.recv().await.unwrap().unwrap(), "a");
        drop(sender);
        assert!(out.recv().await.is_none(), "a whole answer ends at once");
        drop(breaker);
    }

    #[tokio::test]
    async fn the_platforms_reason_wins_over_a_broken_connection() {
        let (sender, pieces) = mpsc::channel(1);
        let (mut out, breaker) = relay(pieces);
        let error = |kind: &str| StreamError { error_type: kind.to_owned(), body: Bytes::new() };
        sender.send(Err(error("Runtime.TruncatedResponse"))).await.unwrap();
        breaker.break_off(error("Runtime.ExitError"));
        assert_eq!(out.recv().await.unwrap().unwrap_err(), error("Runtime.ExitError"));
    }

    #[tokio::test]
    async fn the_functions_own_error_is_passed_on() {
        let (sender, pieces) = mpsc::channel(1);
        let (mut out, breaker) = relay(pieces);
        let error = StreamError { error_type: "Mine".to_owned(), body: Bytes::new() };
        sender.send(Err(error.clone())).await.unwrap();
        drop(breaker);
        assert_eq!(out.recv().await.unwrap().unwrap_err(), error);
    }

    #[tokio::test]
    async fn says_that_it_was_broken_off() {
        let (sender, pieces) = mpsc::channel(1);
        let (mut out, breaker) = relay(pieces);
        sender.send(Ok(Bytes::from_static(b"a"))).await.unwrap();
        assert_eq!(out.recv().await.unwrap().unwrap(), "a");
        let error = StreamError { error_type: "Sandbox.Timedout".to_owned(), body: Bytes::new() };
        breaker.break_off(error.clone());
        assert_eq!(out.recv().await.unwrap().unwrap_err(), error);
        assert!(out.recv().await.is_none());
    }
}
