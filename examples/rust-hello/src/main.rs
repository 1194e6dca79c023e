//! A greeting, and what the function knows about itself.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Event {
    #[serde(default = "world")]
    name: String,
}

fn world() -> String {
    "world".to_owned()
}

#[derive(Serialize)]
struct Greeting {
    message: String,
    from: &'static str,
    function: String,
    request: String,
}

async fn handler(event: LambdaEvent<Event>) -> Result<Greeting, Error> {
    let (Event { name }, context) = event.into_parts();
    eprintln!("greeting {name}");
    Ok(Greeting {
        message: format!("Hello, {name}!"),
        from: "Rust",
        function: context.env_config.function_name.clone(),
        request: context.request_id,
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handler)).await
}
