#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Mutex;
use std::time::Duration;

use lambent_store::Embedded;
use lambent_store::queue::{Leased, Settlement, Wish};
use serde_json::{Map, Value, json};

use super::*;

/// A clock that is set by hand.
struct Hand(Mutex<Timestamp>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct World {
    dir: tempfile::TempDir,
    store: Embedded,
    clock: Arc<Hand>,
    schedules: Arc<Schedules>,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn open(store: &Embedded, clock: &Arc<Hand>) -> Arc<Schedules> {
    let (catalog, queue) = (store.catalog.clone(), store.events.clone());
    Schedules::open(catalog, queue, clock.clone(), Region::default()).await.unwrap()
}

impl World {
    async fn new(now: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path()).unwrap();
        let clock = Arc::new(Hand(Mutex::new(at(now))));
        let schedules = open(&store, &clock).await;
        Self { dir, store, clock, schedules }
    }

    /// The process dies and comes back.
    async fn again(self) -> Self {
        let Self { dir, store, clock, schedules } = self;
        drop((store, schedules));
        let store = Embedded::open(dir.path()).unwrap();
        let schedules = open(&store, &clock).await;
        Self { dir, store, clock, schedules }
    }

    async fn call(&self, operation: &str, input: Value) -> Result<Value, Error> {
        let Value::Object(input) = input else { panic!() };
        self.schedules.call(&AccountId::default(), operation, input).await.unwrap()
    }

    async fn create(&self, expression: &str, more: Value) -> Result<Value, Error> {
        let mut input = json!({
            "Name": "s",
            "ScheduleExpression": expression,
            "FlexibleTimeWindow": { "Mode": "OFF" },
            "Target": { "Arn": "arn:aws:lambda:us-east-1:000000000000:function:f", "RoleArn": "arn:aws:iam::000000000000:role/r" },
        });
        let (Value::Object(input), Value::Object(more)) = (&mut input, more) else { panic!() };
        input.extend(more);
        self.call("CreateSchedule", Value::Object(input.clone())).await
    }

    async fn lease(&self) -> Vec<Leased> {
        let now = self.clock.now();
        let wish = Wish {
            now,
            until: now + Duration::from_secs(60),
            places: 100,
            most: 100,
            without: Vec::new(),
            latest_by: None,
        };
        self.store.events.lease(wish).await.unwrap().events
    }

    /// What runs when it is `now`: the times that the events' contents say. Ticks are handled as the dispatcher does.
    async fn runs(&self, now: &str) -> Vec<String> {
        *self.clock.0.lock().unwrap() = at(now);
        let mut found = Vec::new();
        loop {
            let leased = self.lease().await;
            if leased.is_empty() {
                return found;
            }
            for event in leased {
                let mut then = Vec::new();
                let task = Meta::read(&event.meta).unwrap().task;
                if let Task::Tick(tick) = &task {
                    then = self.schedules.fire(tick).await.then;
                } else {
                    let content: Map<String, Value> = serde_json::from_slice(&event.payload).unwrap();
                    found.push(content["time"].as_str().unwrap().to_owned());
                }
                let done = Settlement::Done { then };
                assert!(self.store.events.settle(event.lease, done, self.clock.now()).await.unwrap());
                if let Task::Tick(tick) = &task {
                    self.schedules.fired(tick).await;
                }
            }
        }
    }

    async fn pending(&self) -> u64 {
        self.store.events.depth().await.unwrap().pending
    }
}

#[tokio::test]
async fn each_tick_leaves_one_event_also_over_restarts() {
    let world = World::new("2026-01-01T00:00:30Z").await;
    world.create("cron(* * * * ? *)", json!({})).await.unwrap();
    assert_eq!(world.runs("2026-01-01T00:00:59Z").await, [""; 0]);
    assert_eq!(world.runs("2026-01-01T00:01:00Z").await, ["2026-01-01T00:01:00Z"]);
    assert_eq!(world.runs("2026-01-01T00:01:30Z").await, [""; 0]);
    let world = world.again().await;
    assert_eq!(world.pending().await, 1, "the tick that was kept, and no other");
    assert_eq!(world.runs("2026-01-01T00:02:00Z").await, ["2026-01-01T00:02:00Z"]);
}

#[tokio::test]
async fn of_several_missed_ticks_one_runs() {
    let world = World::new("2026-01-01T00:00:00Z").await;
    world.create("rate(5 minutes)", json!({})).await.unwrap();
    assert_eq!(world.runs("2026-01-01T00:00:00Z").await, ["2026-01-01T00:00:00Z"], "a rate begins at once");
    let world = world.again().await;
    assert_eq!(world.runs("2026-01-01T07:01:00Z").await, ["2026-01-01T00:05:00Z"]);
    assert_eq!(world.runs("2026-01-01T07:05:00Z").await, ["2026-01-01T07:05:00Z"]);
}

#[tokio::test]
async fn a_crash_between_lease_and_commit_runs_the_tick_once() {
    let world = World::new("2026-01-01T00:00:00Z").await;
    world.create("at(2026-01-01T00:01:00)", json!({ "ActionAfterCompletion": "DELETE" })).await.unwrap();
    *world.clock.0.lock().unwrap() = at("2026-01-01T00:01:00Z");
    let leased = world.lease().await;
    assert_eq!(leased.len(), 1);
    let world = world.again().await;
    assert_eq!(world.runs("2026-01-01T00:01:01Z").await, ["2026-01-01T00:01:00Z"]);
    assert!(matches!(world.call("GetSchedule", json!({ "Name": "s" })).await, Err(Error::NotFound(_))), "deleted");
    assert_eq!(world.pending().await, 0);
}

#[tokio::test]
async fn what_is_changed_or_deleted_runs_no_more_as_it_was() {
    let world = World::new("2026-01-01T00:00:00Z").await;
    world.create("cron(0 8 * * ? *)", json!({})).await.unwrap();
    let conflict = world.create("cron(0 9 * * ? *)", json!({})).await;
    assert!(matches!(conflict, Err(Error::Conflict(_))));
    let mut input = world.call("GetSchedule", json!({ "Name": "s" })).await.unwrap();
    input["ScheduleExpression"] = json!("cron(0 9 * * ? *)");
    world.call("UpdateSchedule", input.clone()).await.unwrap();
    assert_eq!(world.pending().await, 1);
    assert_eq!(world.runs("2026-01-01T10:00:00Z").await, ["2026-01-01T09:00:00Z"]);
    input["State"] = json!("DISABLED");
    world.call("UpdateSchedule", input.clone()).await.unwrap();
    assert_eq!((world.pending().await, world.runs("2026-01-03T10:00:00Z").await.len()), (0, 0));
    input["State"] = json!("ENABLED");
    world.call("UpdateSchedule", input).await.unwrap();
    world.call("DeleteSchedule", json!({ "Name": "s" })).await.unwrap();
    assert_eq!((world.pending().await, world.runs("2026-01-05T10:00:00Z").await.len()), (0, 0));
}

#[tokio::test]
async fn start_and_end_bound_it_and_a_lost_tick_is_made_again() {
    let world = World::new("2026-01-01T00:00:00Z").await;
    let seconds = |text| at(text).as_second();
    let bounds = json!({ "StartDate": seconds("2026-01-02T00:00:00Z"), "EndDate": seconds("2026-01-02T02:00:00Z") });
    world.create("rate(1 hour)", bounds).await.unwrap();
    assert_eq!(world.runs("2026-01-01T23:59:59Z").await, [""; 0]);
    let tick = world.schedules.ticks(None).await.unwrap()[0].0;
    world.store.events.forget(vec![tick]).await.unwrap();
    let world = world.again().await;
    for hour in ["00", "01", "02"] {
        let now = format!("2026-01-02T{hour}:00:00Z");
        assert_eq!(world.runs(&now).await, [now.as_str()]);
    }
    assert_eq!((world.runs("2026-01-02T09:00:00Z").await.len(), world.pending().await), (0, 0));
}
