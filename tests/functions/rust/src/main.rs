//! A function for tests, built on `lambda_runtime`: what it does, its event says in `do`; any other event comes back as it went in.
//!
//! | `do` | |
//! | --- | --- |
//! | `error` | fails with `message` |
//! | `panic` | panics with `message` |
//! | `exit` | ends the process with `code` and no answer |
//! | `abort` | ends it by a signal |
//! | `large` | answers a string of `bytes` characters |
//! | `stream` | streams `pieces` pieces of `bytes` bytes each |
//! | `stream-error` | streams one piece, then fails |
//! | `context` | answers what the runtime was told beside the event |

use lambda_runtime::streaming::{Body, channel};
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, StreamResponse, service_fn};
use serde_json::{Value, json};

type Answer = FunctionResponse<Value, Body>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(handler)).await
}

async fn handler(LambdaEvent { payload, context }: LambdaEvent<Value>) -> Result<Answer, Error> {
    let message = payload["message"].as_str().unwrap_or("no message").to_owned();
    let number = |name: &str| payload[name].as_u64().unwrap_or(1) as usize;
    let answer = match payload["do"].as_str() {
        Some("error") => return Err(message.into()),
        Some("panic") => panic!("{message}"),
        Some("exit") => std::process::exit(number("code") as i32),
        Some("abort") => std::process::abort(),
        Some("large") => Value::String("x".repeat(number("bytes"))),
        Some("stream") => return Ok(stream(number("pieces"), number("bytes"), Ending::Well)),
        Some("stream-error") => return Ok(stream(1, number("bytes"), Ending::Failed)),
        Some("context") => json!({
            "request_id": context.request_id,
            "deadline": context.deadline,
            "invoked_function_arn": context.invoked_function_arn,
            "trace": context.xray_trace_id,
            "client_context": context.client_context,
            "identity": context.identity,
            "function_name": context.env_config.function_name,
            "memory": context.env_config.memory,
            "version": context.env_config.version,
            "log_stream": context.env_config.log_stream,
            "log_group": context.env_config.log_group,
        }),
        _ => payload,
    };
    Ok(FunctionResponse::BufferedResponse(answer))
}

enum Ending {
    Well,
    Failed,
}

fn stream(pieces: usize, bytes: usize, ending: Ending) -> Answer {
    let (mut sender, body) = channel();
    tokio::spawn(async move {
        for _ in 0..pieces {
            if sender.send_data(vec![b'x'; bytes].into()).await.is_err() {
                return;
            }
        }
        match ending {
            Ending::Well => {}
            Ending::Failed => sender.abort(),
        }
    });
    FunctionResponse::StreamingResponse(StreamResponse::from(body))
}
