//! `lambent affinity set|show|remove`.

use anyhow::Result;
use serde_json::Value;

use super::output;
use crate::cli::{AffinityAction, AffinityArgs};
use crate::client::Client;
use crate::config::Env;

/// Does what was asked, and prints what is set then.
pub async fn run(args: AffinityArgs, env: &dyn Env, json: bool) -> Result<()> {
    let setting = match args.action {
        AffinityAction::Set { function, by, client } => Client::new(&client, env)?.set_affinity(&function, &by).await?,
        AffinityAction::Show { function, client } => Client::new(&client, env)?.affinity(&function).await?,
        AffinityAction::Remove { function, client } => Client::new(&client, env)?.remove_affinity(&function).await?,
    };
    if json {
        return output::json(&setting);
    }
    output::line(setting.get("by").and_then(Value::as_str).unwrap_or("none: any container does for any call"))
}
