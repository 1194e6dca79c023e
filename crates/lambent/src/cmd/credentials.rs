//! `lambent credentials`: an access key of a node, ready for a shell or for `~/.aws`.

use anyhow::Result;
use serde_json::json;

use super::output;
use crate::cli::{CredentialsArgs, CredentialsFormat, ServeArgs};
use crate::config::{self, Env, Use};
use crate::node::Home;

/// Prints the key.
pub async fn run(args: &CredentialsArgs, env: &dyn Env, json: bool) -> Result<()> {
    let node = ServeArgs { data_dir: args.data_dir.clone(), ..ServeArgs::default() };
    let config = config::load(&node, env, Use::Serve)?.config;
    let key = Home::read_or_make(&config.data_dir, &config.account).await?;
    let endpoint = key.endpoint.clone().unwrap_or_else(|| format!("http://{}", config.api.listen));
    let region = key.region.as_deref().unwrap_or(config.region.as_str());
    if json {
        return output::json(&json!({
            "access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key, "account": key.account, "region": region, "endpoint": endpoint,
        }));
    }
    match args.format {
        CredentialsFormat::Env => {
            output::line(&format!("export AWS_ACCESS_KEY_ID={}", key.access_key_id))?;
            output::line(&format!("export AWS_SECRET_ACCESS_KEY={}", key.secret_access_key))?;
            output::line(&format!("export AWS_DEFAULT_REGION={region}"))?;
            output::line(&format!("export AWS_REGION={region}"))?;
            output::line(&format!("export AWS_ENDPOINT_URL={endpoint}"))
        }
        CredentialsFormat::AwsConfig => {
            // The default profile alone has no prefix in that file.
            let prefix = if args.profile == "default" { "" } else { "profile " };
            output::line(&format!("[{prefix}{}]", args.profile))?;
            output::line(&format!("aws_access_key_id = {}", key.access_key_id))?;
            output::line(&format!("aws_secret_access_key = {}", key.secret_access_key))?;
            output::line(&format!("region = {region}"))?;
            output::line(&format!("endpoint_url = {endpoint}"))
        }
    }
}
