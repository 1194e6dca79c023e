//! Concurrency: who may run now.
//!
//! ```text
//! account limit (1,000) = Σ reserved + unreserved pool
//! function with a reservation    → its own pool, never more than the reservation, 0 turns it off
//! function without a reservation → the unreserved pool, shared by all such functions
//! ```
//!
//! A [`Permit`] is one running invocation and gives its place back when dropped. Nothing waits here: without a place the call is
//! throttled at once, as AWS does with synchronous calls.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lambent_model::FunctionArn;
use tokio::sync::Notify;

use crate::calls::Share;

/// How many invocations may run at once.
#[derive(Debug, Clone, Copy)]
pub struct Concurrency {
    /// In the account.
    pub account: u32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { account: lambent_model::limits::ACCOUNT_CONCURRENCY }
    }
}

/// AWS's `ThrottleReason`, those that this system gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleReason {
    /// The function's own reservation is used up.
    ReservedFunctionConcurrentInvocationLimitExceeded,
    /// What the account has for functions without a reservation is used up.
    ConcurrentInvocationLimitExceeded,
    /// Events come faster than they can be kept.
    CallerRateLimitExceeded,
}

impl fmt::Display for ThrottleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Running invocations, counted.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Concurrency,
    unreserved: AtomicU32,
    /// Only functions with a running invocation and a reservation; an entry goes when its count returns to 0.
    reserved: Mutex<HashMap<FunctionArn, u32>>,
    /// Told whenever a place is given back.
    left: Notify,
}

/// One running invocation's place.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    /// The function whose own pool the place is from; none: the unreserved pool.
    reserved: Option<FunctionArn>,
    /// The share of it that a call counts in which had its turn in the line.
    share: Option<Share>,
}

/// A place that was given back by somebody who comes back.
#[derive(Debug)]
pub(crate) struct Parked {
    admission: Arc<Admission>,
    reserved: Option<FunctionArn>,
    share: Option<Share>,
}

impl Permit {
    /// Gives the place back for a while.
    pub(crate) fn park(mut self) -> Parked {
        let share = self.share.take();
        if let Some(share) = &share {
            share.leave();
        }
        // Dropping it is what gives it back.
        Parked { admission: Arc::clone(&self.admission), reserved: self.reserved.clone(), share }
    }

    /// The same place, which counts in a share already.
    pub(crate) fn counted(mut self, share: Share) -> Self {
        self.share = Some(share);
        self
    }

    /// Whether it is one of those that functions without a reservation share.
    pub(crate) fn is_shared(&self) -> bool {
        self.reserved.is_none()
    }
}

impl Parked {
    /// Takes a place again, whether there is one or not.
    pub(crate) fn back(self) -> Permit {
        let Self { admission, reserved, share } = self;
        match &reserved {
            Some(function) => {
                let mut running = admission.reserved.lock().unwrap_or_else(PoisonError::into_inner);
                *running.entry(function.clone()).or_default() += 1;
            }
            None => {
                admission.unreserved.fetch_add(1, Ordering::AcqRel);
            }
        }
        if let Some(share) = &share {
            share.enter();
        }
        Permit { admission, reserved, share }
    }
}

impl Admission {
    pub(crate) fn new(limits: Concurrency) -> Arc<Self> {
        Arc::new(Self { limits, unreserved: AtomicU32::new(0), reserved: Mutex::default(), left: Notify::new() })
    }

    /// A place for one invocation of `function`. `reserved_total` is what all functions together have reserved.
    pub(crate) fn admit(
        self: &Arc<Self>,
        function: &FunctionArn,
        reservation: Option<u32>,
        reserved_total: u32,
    ) -> Result<Permit, ThrottleReason> {
        let reserved = match reservation {
            Some(limit) => {
                self.enter_reserved(function, limit)?;
                Some(function.clone())
            }
            None => {
                self.enter_unreserved(self.limits.account.saturating_sub(reserved_total))?;
                None
            }
        };
        Ok(Permit { admission: Arc::clone(self), reserved, share: None })
    }

    /// Whether there is a place now in a function's own pool.
    pub(crate) fn has_reserved(&self, function: &FunctionArn, reservation: u32) -> bool {
        let running = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(function).copied().unwrap_or_default() < reservation
    }

    /// Places in the unreserved pool that are free now.
    pub(crate) fn free(&self, reserved_total: u32) -> u32 {
        let limit = self.limits.account.saturating_sub(reserved_total);
        limit.saturating_sub(self.unreserved.load(Ordering::Acquire))
    }

    /// Ends when a place is given back.
    pub(crate) fn place_left(&self) -> tokio::sync::futures::Notified<'_> {
        self.left.notified()
    }

    fn enter_reserved(&self, function: &FunctionArn, limit: u32) -> Result<(), ThrottleReason> {
        let refused = ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded;
        if limit == 0 {
            return Err(refused);
        }
        let mut running = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        match running.get_mut(function) {
            Some(count) if *count >= limit => return Err(refused),
            Some(count) => *count += 1,
            None => {
                running.insert(function.clone(), 1);
            }
        }
        Ok(())
    }

    fn enter_unreserved(&self, limit: u32) -> Result<(), ThrottleReason> {
        let take = |running| if running < limit { Some(running + 1) } else { None };
        match self.unreserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(ThrottleReason::ConcurrentInvocationLimitExceeded),
        }
    }

    fn leave_reserved(&self, function: &FunctionArn) {
        let mut running = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(function) {
            *count -= 1;
            if *count == 0 {
                running.remove(function);
            }
        }
    }

    /// Waits until nothing runs.
    pub(crate) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.running() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Invocations running now.
    pub(crate) fn running(&self) -> u32 {
        let reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        self.unreserved.load(Ordering::Acquire) + reserved.values().sum::<u32>()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match &self.reserved {
            Some(function) => self.admission.leave_reserved(function),
            None => {
                self.admission.unreserved.fetch_sub(1, Ordering::AcqRel);
            }
        }
        // Before anybody looks who is told.
        if let Some(share) = &self.share {
            share.leave();
        }
        self.admission.left.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lambent_model::{AccountId, Region};

    fn function(name: &str) -> FunctionArn {
        FunctionArn { region: Region::default(), account: AccountId::default(), name: name.parse().unwrap() }
    }

    #[test]
    fn a_reservation_is_a_pool_of_its_own() {
        let admission = Admission::new(Concurrency { account: 10 });
        let (a, b) = (function("a"), function("b"));
        let held: Vec<_> = (0..2).map(|_| admission.admit(&a, Some(2), 2).unwrap()).collect();
        assert_eq!(
            admission.admit(&a, Some(2), 2).unwrap_err(),
            ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded
        );
        assert!(admission.admit(&b, Some(2), 2).is_ok(), "another function's reservation is untouched");
        assert_eq!(admission.running(), 2);
        drop(held);
        assert_eq!(admission.running(), 0);
        assert!(admission.reserved.lock().unwrap().is_empty());
    }

    #[test]
    fn functions_without_reservation_share_what_reservations_leave() {
        let admission = Admission::new(Concurrency { account: 10 });
        let held: Vec<_> = (0..8).map(|i| admission.admit(&function(&format!("f{i}")), None, 2).unwrap()).collect();
        assert_eq!(
            admission.admit(&function("late"), None, 2).unwrap_err(),
            ThrottleReason::ConcurrentInvocationLimitExceeded
        );
        drop(held);
        assert!(admission.admit(&function("late"), None, 2).is_ok());
    }

    #[test]
    fn a_reservation_of_zero_turns_the_function_off() {
        let admission = Admission::new(Concurrency::default());
        assert_eq!(
            admission.admit(&function("off"), Some(0), 0).unwrap_err(),
            ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded
        );
    }
}
