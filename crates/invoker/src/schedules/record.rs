//! A schedule as it is kept, in the words of AWS's API.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use lambent_model::{AccountId, FunctionRef, Region, RequestId};
use serde::{Deserialize, Serialize};

use super::Error;
use super::expression::Expression;

/// Format of the documents below.
pub(crate) const FORMAT: u32 = 1;
/// Largest `Input`; what an event of EventBridge may have.
const INPUT_BYTES: usize = 256 * 1024;

/// What a client asks for, with AWS's defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Wanted {
    pub(crate) schedule_expression: String,
    #[serde(default = "utc")]
    pub(crate) schedule_expression_timezone: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_date: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end_date: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) state: State,
    pub(crate) flexible_time_window: Window,
    #[serde(default)]
    pub(crate) action_after_completion: AfterCompletion,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kms_key_arn: Option<String>,
    pub(crate) target: Target,
}

fn utc() -> String {
    "UTC".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum State {
    #[default]
    Enabled,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum AfterCompletion {
    #[default]
    None,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Window {
    pub(crate) mode: Mode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) maximum_window_in_minutes: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Mode {
    Off,
    Flexible,
}

/// Where it goes. Parameters of other services' targets are refused as unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) arn: String,
    pub(crate) role_arn: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dead_letter_config: Option<DeadLetter>,
    #[serde(default)]
    pub(crate) retry_policy: RetryPolicy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeadLetter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) arn: Option<String>,
}

/// How often handing the event over is tried; here that is a commit of this node, which does not fail by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RetryPolicy {
    pub(crate) maximum_event_age_in_seconds: u32,
    pub(crate) maximum_retry_attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { maximum_event_age_in_seconds: 86_400, maximum_retry_attempts: 185 }
    }
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) region: Region,
    pub(crate) account: AccountId,
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) wanted: Wanted,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    /// Changes with every change; ticks of another one are void.
    pub(crate) generation: RequestId,
    pub(crate) client_token: Option<String>,
}

/// A group of schedules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) region: Region,
    pub(crate) account: AccountId,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) tags: Vec<Tag>,
    pub(crate) client_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl Group {
    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:scheduler:{}:{}:schedule-group/{}", self.region, self.account, self.name)
    }
}

impl Wanted {
    /// What AWS checks beyond the model's constraints.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::Validation(text));
        if let Err(why) = Expression::parse(&self.schedule_expression) {
            return wrong(format!("Invalid Schedule Expression {}: {why}.", self.schedule_expression));
        }
        if TimeZone::get(&self.schedule_expression_timezone).is_err() {
            return wrong("The provided ScheduleExpressionTimezone is not supported.".to_owned());
        }
        if self.start_date.zip(self.end_date).is_some_and(|(start, end)| end <= start) {
            return wrong("The EndDate you specify must come after the StartDate.".to_owned());
        }
        match (self.flexible_time_window.mode, self.flexible_time_window.maximum_window_in_minutes) {
            (Mode::Off, None) | (Mode::Flexible, Some(_)) => {}
            (Mode::Off, Some(_)) => {
                return wrong("MaximumWindowInMinutes goes with the mode FLEXIBLE only.".to_owned());
            }
            (Mode::Flexible, None) => return wrong("The mode FLEXIBLE needs MaximumWindowInMinutes.".to_owned()),
        }
        let is_function = self.target.arn.starts_with("arn:") && self.target.arn.parse::<FunctionRef>().is_ok();
        if !is_function {
            return Err(Error::NotBuilt(format!("A target other than a Lambda function ({})", self.target.arn)));
        }
        let Some(input) = &self.target.input else { return Ok(()) };
        if input.len() > INPUT_BYTES {
            return wrong(format!("Input is {} bytes; the most is {INPUT_BYTES}.", input.len()));
        }
        match serde_json::from_str::<serde::de::IgnoredAny>(&input.replace(['<', '>'], "")) {
            Ok(_) => Ok(()),
            Err(why) => wrong(format!("Input for a Lambda function must be valid JSON: {why}.")),
        }
    }
}

impl Definition {
    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:scheduler:{}:{}:schedule/{}/{}", self.region, self.account, self.group, self.name)
    }

    /// The first run after `after`; none where it is disabled, or there is none before its end.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let wanted = &self.wanted;
        if wanted.state == State::Disabled {
            return None;
        }
        let expression = Expression::parse(&wanted.schedule_expression).ok()?;
        let zone = TimeZone::get(&wanted.schedule_expression_timezone).ok()?;
        if let Expression::At(_) = expression {
            return expression.next(&zone, Timestamp::MIN, after);
        }
        let start = wanted.start_date.and_then(moment).unwrap_or(self.modified);
        let end = wanted.end_date.and_then(moment).unwrap_or(Timestamp::MAX);
        expression.next(&zone, start, after).filter(|next| *next <= end)
    }

    /// How long after its time an event may come.
    pub(crate) fn window(&self) -> SignedDuration {
        SignedDuration::from_mins(self.wanted.flexible_time_window.maximum_window_in_minutes.unwrap_or(0).into())
    }
}

/// Seconds since 1970, as AWS's JSON has times.
pub(crate) fn moment(seconds: f64) -> Option<Timestamp> {
    Timestamp::UNIX_EPOCH.checked_add(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
}

/// The other way round, to the millisecond.
pub(crate) fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
