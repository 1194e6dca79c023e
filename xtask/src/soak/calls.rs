//! The callers: so many clients at once, each with a connection of its own, and what became of every call.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use super::harm::Chance;
use crate::api::{Answer, Api};

/// Clients at once.
pub const CLIENTS: usize = 8;
/// One blow for so many calls.
const CALLS_PER_BLOW: u64 = 8;
/// The longest that a function is asked to take.
const MOST_MS: u64 = 25;
/// Within this every call is answered, or it never will be.
const PATIENCE: Duration = Duration::from_secs(60);
/// Faults that are told in words; the others are counted.
const TOLD: usize = 20;

/// Answered with what was asked for.
pub const ANSWERED: &str = "answered";
/// Error types of functions that harm to their processes explains.
const EXPLAINED: [&str; 3] = ["Runtime.ExitError", "Extension.Crash", "Sandbox.Timedout"];
/// Refusals that AWS documents for an invocation.
const REFUSALS: [(u16, &str); 2] = [(429, "TooManyRequestsException"), (500, "ServiceException")];

/// What became of the calls.
#[derive(Debug, Default)]
pub struct Tally {
    /// Proper ends, by kind.
    pub outcomes: BTreeMap<String, usize>,
    /// What should not have happened: the first few in words.
    pub faults: Vec<String>,
    /// All of these.
    pub fault_count: usize,
    /// How long each call took, whatever its end.
    pub took: Vec<Duration>,
}

/// How calls follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Each client calls as soon as it was answered; all functions alike.
    Steady,
    /// Each client pauses at random, so long on average; some functions are called far more often than others.
    Random(Duration),
}

/// What one round is to be.
pub struct Plan<'a> {
    /// Whom to call.
    pub functions: &'a [String],
    /// How many calls.
    pub calls: u64,
    /// The number of the first; numbers are not used twice, so that no answer can be taken for another's.
    pub first: u64,
    /// How they follow each other.
    pub pace: Pace,
    /// What is left to chance.
    pub chance: Chance,
    /// Where blows are ordered, which fall meanwhile.
    pub orders: Option<SyncSender<()>>,
}

impl Tally {
    fn fault(&mut self, text: String) {
        self.fault_count += 1;
        if self.faults.len() < TOLD {
            self.faults.push(text);
        }
    }

    /// Calls that ended in any way.
    pub fn calls(&self) -> usize {
        self.outcomes.values().sum::<usize>() + self.fault_count
    }

    /// The longest that a call took.
    pub fn slowest(&self) -> Duration {
        self.took.iter().max().copied().unwrap_or_default()
    }

    /// Calls that ended well.
    pub fn answered(&self) -> usize {
        self.outcomes.get(ANSWERED).copied().unwrap_or(0)
    }
}

/// What the clients of one round share.
struct Round {
    api: Api,
    functions: Vec<String>,
    pace: Pace,
    orders: Option<SyncSender<()>>,
    state: RefCell<(u64, Chance, Tally)>,
}

/// Makes the planned calls, waits for all of them, and adds them to `tally`.
pub fn run(api: &Api, plan: Plan<'_>, tally: Tally) -> Result<Tally> {
    let Plan { functions, calls, first, pace, chance, orders } = plan;
    let state = RefCell::new((first + calls, chance, tally));
    let round = Rc::new(Round { api: api.clone(), functions: functions.to_vec(), pace, orders, state });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all = async {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn_local(client(round.clone(), first));
        }
        while let Some(ended) = clients.join_next().await {
            ended?;
        }
        anyhow::Ok(())
    };
    tokio::task::LocalSet::new().block_on(&runtime, all)?;
    Ok(round.state.replace((0, Chance(0), Tally::default())).2)
}

async fn client(round: Rc<Round>, first: u64) {
    let mut connection = None;
    loop {
        let Some((n, function, ms, blow)) = next(&round, first) else { return };
        if let Pace::Random(mean) = round.pace {
            let pause = mean.mul_f64(round.state.borrow_mut().1.exponential());
            tokio::time::sleep(pause).await;
        }
        if blow && let Some(orders) = &round.orders {
            let _ = orders.try_send(());
        }
        let path = format!("/2015-03-31/functions/{function}/invocations");
        let event = json!({ "n": n, "ms": ms }).to_string();
        let begun = Instant::now();
        let sent = round.api.send(&mut connection, Method::POST, &path, event.into());
        let answer = tokio::time::timeout(PATIENCE, sent).await;
        let (_, _, tally) = &mut *round.state.borrow_mut();
        tally.took.push(begun.elapsed());
        match answer {
            Ok(Ok(answer)) => match judge(&answer, n) {
                Ok(outcome) => *tally.outcomes.entry(outcome).or_default() += 1,
                Err(fault) => tally.fault(format!("{function} {n}: {fault}")),
            },
            Ok(Err(error)) => tally.fault(format!("{function} {n}: {error:#}")),
            Err(_elapsed) => tally.fault(format!("{function} {n}: no answer within {PATIENCE:?}")),
        }
    }
}

/// The next call: its number, whom it calls, how long that takes, whether a blow falls beside it.
fn next(round: &Round, first: u64) -> Option<(u64, String, u64, bool)> {
    let (left, chance, _) = &mut *round.state.borrow_mut();
    *left = left.checked_sub(1).filter(|n| *n >= first)?;
    let count = round.functions.len() as u64;
    let index = match round.pace {
        Pace::Steady => chance.below(count),
        // The smallest of three: the first functions are called often, the last ones hardly ever.
        Pace::Random(_) => chance.below(count).min(chance.below(count)).min(chance.below(count)),
    };
    let index = usize::try_from(index).unwrap_or(0);
    let function = round.functions.get(index)?.clone();
    Some((*left, function, chance.below(MOST_MS), chance.below(CALLS_PER_BLOW) == 0))
}

/// The kind of a proper end; else what is wrong with it.
fn judge(answer: &Answer, n: u64) -> Result<String, String> {
    let body = String::from_utf8_lossy(&answer.body);
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    let id = answer.header("x-amzn-requestid");
    if id.is_empty() {
        return Err(format!("no request id: {} {body}", answer.status));
    }
    if answer.status != http::StatusCode::OK {
        let code = answer.header("x-amzn-errortype");
        let refusal = (answer.status.as_u16(), code);
        let known = REFUSALS.contains(&refusal) && !format!("{}{}", text("message"), text("Message")).is_empty();
        return if known {
            Ok(format!("{} {code}", refusal.0))
        } else {
            Err(format!("{} {code} {body}", answer.status))
        };
    }
    match answer.header("x-amz-function-error") {
        "" if body == n.to_string() => Ok(ANSWERED.to_owned()),
        "Unhandled" if EXPLAINED.contains(&text("errorType")) => {
            let message = format!("RequestId: {id} Error: ");
            if !text("errorMessage").starts_with(&message) {
                return Err(format!("another request's error than {id}: {body}"));
            }
            Ok(text("errorType").to_owned())
        }
        error => Err(format!("{error} {body}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let mut all = http::HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        Answer { status: http::StatusCode::from_u16(status).unwrap(), headers: all, body: body.to_owned().into() }
    }

    #[test]
    fn only_proper_ends_pass() {
        let id = ("x-amzn-requestid", "R");
        let unhandled = ("x-amz-function-error", "Unhandled");
        let died = r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: R Error: Runtime exited"}"#;
        assert_eq!(judge(&answer(200, &[id], "7"), 7).unwrap(), ANSWERED);
        assert_eq!(judge(&answer(200, &[id, unhandled], died), 7).unwrap(), "Runtime.ExitError");
        let internal = answer(500, &[id, ("x-amzn-errortype", "ServiceException")], r#"{"Message":"m"}"#);
        assert_eq!(judge(&internal, 7).unwrap(), "500 ServiceException");
        for wrong in [
            answer(200, &[id], "8"),
            answer(200, &[], "7"),
            answer(200, &[("x-amzn-requestid", "S"), unhandled], died),
            answer(
                200,
                &[id, unhandled],
                r#"{"errorType":"Runtime.OutOfMemory","errorMessage":"RequestId: R Error: x"}"#,
            ),
            answer(503, &[id, ("x-amzn-errortype", "ServiceException")], r#"{"Message":"m"}"#),
            answer(500, &[id, ("x-amzn-errortype", "ServiceException")], ""),
        ] {
            assert!(judge(&wrong, 7).is_err());
        }
    }
}
