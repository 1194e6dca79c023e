//! `lambent schedules [list|show|put|delete|run]`.

use anyhow::{Context as _, Result};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::output;
use crate::cli::{SchedulesAction, SchedulesArgs, SchedulesWhich};
use crate::client::{ApiError, Client};
use crate::config::Env;

const SERVICE: &str = "scheduler";
/// AWS wants a role; here none is assumed.
const ROLE: &str = "arn:aws:iam::000000000000:role/lambent-schedules";
/// What of a schedule a change of it has to say again.
const KEPT: [&str; 9] = [
    "GroupName",
    "StartDate",
    "EndDate",
    "Description",
    "State",
    "FlexibleTimeWindow",
    "ActionAfterCompletion",
    "KmsKeyArn",
    "Target",
];

/// Does what was asked.
pub async fn run(args: SchedulesArgs, env: &dyn Env, json: bool) -> Result<()> {
    match args.action {
        None => list(args.which, env, json).await,
        Some(SchedulesAction::List { which }) => list(which, env, json).await,
        Some(SchedulesAction::Show { name, which }) => {
            let (client, path, _) = one(&which, env, &name)?;
            let found = client.json_of(SERVICE, Method::GET, path, None).await?;
            if json { output::json(&found) } else { output::line(&serde_json::to_string_pretty(&found)?) }
        }
        Some(SchedulesAction::Put { name, expression, function, input, timezone, which }) => {
            let (client, path, group) = one(&which, env, &name)?;
            let there = match client.json_of(SERVICE, Method::GET, path, None).await {
                Ok(there) => Some(there),
                Err(error) if error.downcast_ref::<ApiError>().is_some_and(|e| e.status == 404) => None,
                Err(error) => return Err(error),
            };
            let method = if there.is_some() { Method::PUT } else { Method::POST };
            let path = format!("/2015-03-31/functions/{}/configuration", encode(&function));
            let found = client.json(Method::GET, path, None).await?;
            let arn = found.get("FunctionArn").and_then(Value::as_str).context("a function without ARN")?.to_owned();
            let wanted = wanted(there, &group, (expression, timezone), (arn, input));
            let put = client.json_of(SERVICE, method, format!("/schedules/{}", encode(&name)), Some(&wanted)).await?;
            said(json, &put, &format!("put {name}"))
        }
        Some(SchedulesAction::Delete { name, which }) => {
            let (client, path, _) = one(&which, env, &name)?;
            client.json_of(SERVICE, Method::DELETE, path, None).await?;
            said(json, &json!({ "deleted": name }), &format!("deleted {name}"))
        }
        Some(SchedulesAction::Run { name, which }) => {
            let (client, _, group) = one(&which, env, &name)?;
            let path = format!("/_lambent/schedules/{}/{}/run", encode(&group), encode(&name));
            let started = client.json(Method::POST, path, None).await?;
            said(json, &started, &format!("started {name}"))
        }
    }
}

/// The node, a schedule's path there, and its group.
fn one(which: &SchedulesWhich, env: &dyn Env, name: &str) -> Result<(Client, String, String)> {
    let group = which.group.clone().unwrap_or_else(|| "default".to_owned());
    let path = format!("/schedules/{}?groupName={}", encode(name), encode(&group));
    Ok((Client::new(&which.client, env)?, path, group))
}

/// What a schedule is to be: what it was, with what is said anew.
fn wanted(there: Option<Value>, group: &str, when: (String, String), call: (String, Option<String>)) -> Value {
    let mut wanted: Map<String, Value> = match there {
        Some(Value::Object(there)) => there.into_iter().filter(|(name, _)| KEPT.contains(&name.as_str())).collect(),
        _ => Map::new(),
    };
    let ((expression, timezone), (arn, input)) = (when, call);
    wanted.insert("GroupName".to_owned(), group.into());
    wanted.insert("ScheduleExpression".to_owned(), expression.into());
    wanted.insert("ScheduleExpressionTimezone".to_owned(), timezone.into());
    wanted.entry("FlexibleTimeWindow").or_insert_with(|| json!({ "Mode": "OFF" }));
    let target = wanted.entry("Target").or_insert_with(|| json!({ "RoleArn": ROLE }));
    if let Value::Object(target) = target {
        target.insert("Arn".to_owned(), arn.into());
        target.extend(input.map(|input| ("Input".to_owned(), Value::String(input))));
    }
    Value::Object(wanted)
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn said(json: bool, document: &Value, words: &str) -> Result<()> {
    if json { output::json(document) } else { output::line(words) }
}

async fn list(which: SchedulesWhich, env: &dyn Env, json: bool) -> Result<()> {
    let client = Client::new(&which.client, env)?;
    let (mut schedules, mut token) = (Vec::new(), None::<String>);
    loop {
        let pairs = [("ScheduleGroup", which.group.as_deref()), ("NextToken", token.as_deref())];
        let query: Vec<String> =
            (pairs.iter()).filter_map(|(name, value)| Some(format!("{name}={}", encode((*value)?)))).collect();
        let path = format!("/schedules?{}", query.join("&"));
        let mut page = client.json_of(SERVICE, Method::GET, path, None).await?;
        if let Some(Value::Array(found)) = page.get_mut("Schedules").map(Value::take) {
            schedules.extend(found);
        }
        token = page.get("NextToken").and_then(Value::as_str).map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    if json {
        return output::json(&Value::Array(schedules));
    }
    let text = |found: &Value, at: &str| found.pointer(at).and_then(Value::as_str).unwrap_or("-").to_owned();
    let row = |found: &Value| ["/GroupName", "/Name", "/State", "/Target/Arn"].map(|at| text(found, at)).to_vec();
    let rows: Vec<Vec<String>> = schedules.iter().map(row).collect();
    output::table(&["GROUP", "NAME", "STATE", "TARGET"], &rows)
}
