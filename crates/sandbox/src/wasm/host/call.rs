//! One call: an instance, the event in, the answer out.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use lambent_model::limits::SYNC_RESPONSE_BYTES;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::function::{Exports, Function, Instance};
use super::linker::Context;
use super::{Shared, Window, http};
use crate::wasm::monotonic_ns;
use crate::wasm::wire::{Done, Kind, Outcome, Request};

/// Longest message of an error.
const MESSAGE_BYTES: usize = 4_000;
/// Longest piece of a streamed answer that is sent at once.
const PIECE: usize = 256 << 10;

/// What a guest sets as its response.
type Answered = Result<::http::Response<HyperOutgoingBody>, ErrorCode>;

/// Runs a call, whatever becomes of it.
pub(super) async fn run(shared: &Arc<Shared>, id: u32, function: &Function, call: Request) -> Done {
    let _running = shared.ticker.enter();
    let window = Arc::new(shared.window(id));
    let limit = call.timeout;
    let mut done = Done::default();
    let begun = Clock::now();
    let mut made = function.take();
    if made.is_none() {
        made = make(shared, function, &window, limit, &mut done).await;
    }
    if made.is_none() && matches!(done.outcome, Outcome::Busy | Outcome::OutOfMemory) {
        // What others only keep may be what is missing.
        shared.drop_idle();
        done = Done::default();
        made = make(shared, function, &window, limit, &mut done).await;
    }
    let Some(mut instance) = made else { return done };
    let output = instance.store.data().output.clone();
    output.begin(Some(Arc::clone(&window)));
    done.made = begun.elapsed();
    done.began_ns = monotonic_ns();
    let left = limit.saturating_sub(begun.elapsed());
    let ended = tokio::time::timeout(left, work(&mut instance, function, &window, call, &mut done)).await;
    match ended {
        Err(_elapsed) => done.outcome = Outcome::TimedOut,
        Ok(Err(error)) => explain(&error, instance.store.data().limiter.refused, &mut done),
        Ok(Ok(())) => {}
    }
    function.took(begun.elapsed());
    done.memory_bytes = instance.store.data().limiter.used();
    done.log = output.end();
    if matches!(done.outcome, Outcome::Success | Outcome::Error) {
        function.keep(instance);
    }
    done
}

/// A new instance; none, with the reason in `done`, where there is none to be had.
async fn make(
    shared: &Arc<Shared>,
    function: &Function,
    window: &Arc<Window>,
    limit: Duration,
    done: &mut Done,
) -> Option<Instance> {
    let mut store = match function.store(shared) {
        Ok(store) => store,
        Err(error) => {
            explain(&error, false, done);
            return None;
        }
    };
    if let Some(fuel) = function.load.fuel {
        // Cannot fail: the engine of this flavour counts.
        let _ = store.set_fuel(fuel);
    }
    let output = store.data().output.clone();
    output.begin(Some(Arc::clone(window)));
    // A component may have a start function, which runs here.
    match tokio::time::timeout(limit, function.instantiate(&mut store)).await {
        Ok(Ok(exports)) => return Some(Instance { store, exports, calls: 0 }),
        Ok(Err(error)) => explain(&error, store.data().limiter.refused, done),
        Err(_elapsed) => done.outcome = Outcome::TimedOut,
    }
    done.memory_bytes = store.data().limiter.used();
    done.log = output.end();
    None
}

/// Lets the guest work; what it answers is in `done`. An error is a trap, or a fault of this process.
async fn work(
    instance: &mut Instance,
    function: &Function,
    window: &Arc<Window>,
    call: Request,
    done: &mut Done,
) -> wasmtime::Result<()> {
    if let Some(fuel) = function.load.fuel {
        instance.store.set_fuel(fuel)?;
    }
    instance.store.set_epoch_deadline(1);
    match &instance.exports {
        Exports::Direct(direct) => {
            let context = context(function, &call);
            let handler = direct.lambent_function_handler();
            // Lists are passed by reference: the event is copied once, into the guest's memory.
            match handler.call_handle(&mut instance.store, &call.event, &context).await? {
                Ok(answer) => finish(done, "application/json", answer.into()),
                Err(error) => {
                    done.outcome = Outcome::Error;
                    (done.error_type, done.message) = (error.error_type, shortened(error.message));
                }
            }
            Ok(())
        }
        Exports::Http(_) => over_http(instance, window, call, done).await,
    }
}

fn context(function: &Function, call: &Request) -> Context {
    Context {
        request_id: call.request_id.clone(),
        invoked_function_arn: call.invoked_arn.clone(),
        function_name: function.load.name.clone(),
        function_version: function.load.version.clone(),
        memory_limit_mib: function.load.memory_mib,
        deadline_ms: call.deadline_ms,
        trace_id: call.trace.clone(),
        client_context: call.client_context.clone(),
        identity: call.identity.clone(),
    }
}

fn finish(done: &mut Done, content_type: &str, answer: Bytes) {
    if answer.len() > SYNC_RESPONSE_BYTES {
        done.outcome = Outcome::TooLarge;
        return;
    }
    (done.outcome, done.content_type, done.answer) = (Outcome::Success, content_type.to_owned(), answer);
}

/// The event as a request to the guest's `incoming-handler`, and what that answers.
async fn over_http(
    instance: &mut Instance,
    window: &Arc<Window>,
    call: Request,
    done: &mut Done,
) -> wasmtime::Result<()> {
    let Exports::Http(proxy) = &instance.exports else { return Ok(()) };
    let request = match http::request(&call.event) {
        Ok(request) => request,
        Err(reason) => {
            done.outcome = Outcome::Error;
            (done.error_type, done.message) = ("Runtime.InvalidEvent".to_owned(), reason);
            return Ok(());
        }
    };
    let (sender, mut answered) = tokio::sync::oneshot::channel::<Answered>();
    let mut view = instance.store.data_mut().http();
    let request = view.new_incoming_request(http::scheme(), request)?;
    let out = view.new_response_outparam(sender)?;
    let handler = proxy.wasi_http_incoming_handler();
    let handled = handler.call_handle(&mut instance.store, request, out);
    tokio::pin!(handled);
    // The answer may come long before the guest is done; whoever waits for it can have it then.
    let (answer, ended) = tokio::select! {
        biased;
        answer = &mut answered => (answer.ok(), None),
        ended = &mut handled => (answered.try_recv().ok(), Some(ended)),
    };
    let answer = match (answer, &ended) {
        (Some(Ok(answer)), _) => answer,
        (Some(Err(code)), _) => {
            done.outcome = Outcome::Error;
            (done.error_type, done.message) = ("Function.Http".to_owned(), format!("{code:?}"));
            return ended.unwrap_or(Ok(()));
        }
        (None, Some(Err(_))) => return ended.unwrap_or(Ok(())),
        (None, _) => {
            done.outcome = Outcome::Error;
            done.error_type = "Function.NoResponse".to_owned();
            done.message = "the function returned without setting a response".to_owned();
            return Ok(());
        }
    };
    let (head, body) = answer.into_parts();
    let sent = async {
        match call.streaming {
            true => stream(window, &head, body, done).await,
            false => whole(&head, body, done).await,
        }
    };
    match ended {
        Some(ended) => {
            sent.await;
            ended
        }
        None => {
            let ((), ended) = tokio::join!(sent, handled);
            ended
        }
    }
}

/// The whole answer, as payload format 2.0 has it.
async fn whole(head: &::http::response::Parts, body: HyperOutgoingBody, done: &mut Done) {
    match Limited::new(body, SYNC_RESPONSE_BYTES).collect().await {
        Ok(body) => finish(done, "application/json", http::answer(head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => done.outcome = Outcome::TooLarge,
        Err(error) => {
            done.outcome = Outcome::Error;
            (done.error_type, done.message) = ("Function.Http".to_owned(), format!("the body broke off: {error}"));
        }
    }
}

/// The answer as it comes, with a prelude.
async fn stream(window: &Arc<Window>, head: &::http::response::Parts, mut body: HyperOutgoingBody, done: &mut Done) {
    done.outcome = Outcome::Success;
    done.content_type = http::WITH_PRELUDE.to_owned();
    window.send(Kind::Piece, &http::prelude(head)).await;
    while let Some(frame) = body.frame().await {
        match frame.map(::http_body::Frame::into_data) {
            Ok(Ok(data)) => {
                for piece in data.chunks(PIECE) {
                    window.send(Kind::Piece, piece).await;
                }
            }
            // Trailers have no place in an answer.
            Ok(Err(_trailers)) => {}
            Err(error) => {
                done.outcome = Outcome::Error;
                (done.error_type, done.message) = ("Function.Http".to_owned(), format!("the body broke off: {error}"));
                return;
            }
        }
    }
}

fn shortened(mut text: String) -> String {
    let cut = (0..=MESSAGE_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(cut);
    text
}

/// What a trap, or another reason why the guest came to no end of its own, is called.
fn explain(error: &wasmtime::Error, refused: bool, done: &mut Done) {
    if error.is::<PoolConcurrencyLimitError>() {
        done.outcome = Outcome::Busy;
        return;
    }
    (done.outcome, done.error_type) = match (error.downcast_ref::<I32Exit>(), error.downcast_ref::<Trap>()) {
        (Some(I32Exit(code)), _) => {
            done.message = match code {
                0 => "Runtime exited without providing a reason".to_owned(),
                code => format!("Runtime exited with error: exit status {code}"),
            };
            done.outcome = Outcome::Trapped;
            done.error_type = "Runtime.ExitError".to_owned();
            return;
        }
        (None, Some(Trap::OutOfFuel)) => (Outcome::OutOfFuel, "Runtime.OutOfFuel".to_owned()),
        _ if refused => (Outcome::OutOfMemory, "Runtime.OutOfMemory".to_owned()),
        (None, Some(_)) => (Outcome::Trapped, "Runtime.Trap".to_owned()),
        (None, None) => (Outcome::Trapped, "Runtime.ExitError".to_owned()),
    };
    done.message = shortened(format!("{error:#}"));
}
