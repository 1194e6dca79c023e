//! A caller's claim on a call's result: when it is first asked for is when it was needed, and from then on the call is urgent.

use std::sync::Arc;
use std::time::Instant;

use lambent_model::FunctionVersion;

use super::desk::Desk;
use crate::deadlines::Deadlines;
use crate::deadlines::learned::Site;

/// Of one call. Where it is dropped before anybody asked, the caller's invocation has ended: that was when the result was needed at the latest.
#[derive(Debug)]
pub(super) struct Claim {
    pub desk: Arc<Desk>,
    pub deadlines: Arc<Deadlines>,
    /// Where the call waits.
    pub spot: u64,
    pub caller: Arc<FunctionVersion>,
    pub site: Arc<Site>,
    pub since: Instant,
    pub state: State,
}

/// What the caller has said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Open,
    /// It wants the result now.
    Asked,
    /// It does not want it.
    LetGo,
}

impl Claim {
    /// The result is asked for; where the call waits, the first time.
    pub fn ask(&mut self) -> Option<u64> {
        match self.state {
            State::Open => {
                self.state = State::Asked;
                self.deadlines.needed(&self.caller, &self.site, self.since.elapsed());
                Some(self.spot)
            }
            State::Asked | State::LetGo => None,
        }
    }

    /// Nobody will ask for it, and nothing is learned from that.
    pub fn let_go(&mut self) {
        if self.state == State::Open {
            self.state = State::LetGo;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.state == State::Open {
            self.deadlines.needed(&self.caller, &self.site, self.since.elapsed());
        }
        self.desk.withdraw(self.spot);
    }
}
