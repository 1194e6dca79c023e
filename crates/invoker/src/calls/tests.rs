#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use lambent_fleet::Seat as _;

use super::seat::Ticket;
use super::*;
use crate::admission::{Admission, Concurrency};

fn seated(admission: &Arc<Admission>, books: &Arc<Books>) -> (Arc<Seat>, Ticket) {
    let function = FunctionArn { region: Default::default(), account: Default::default(), name: "f".parse().unwrap() };
    Seat::of(admission.admit(&function, None, 0).unwrap(), Arc::clone(books))
}

fn answered(bytes: usize) -> Result<Outcome, Error> {
    Ok(Outcome { executed_version: Version::Latest, error: None, body: Bytes::from(vec![b'1'; bytes]) })
}

#[test]
fn who_waits_has_no_place_and_takes_one_without_asking_when_back() {
    let (admission, books) = (Admission::new(Concurrency { account: 1 }), Arc::default());
    let (seat, ticket) = seated(&admission, &books);
    assert_eq!(admission.running(), 1);
    let (first, second) = (Seat::leave(&seat, Blocked::No), Seat::leave(&seat, Blocked::No));
    assert_eq!(admission.running(), 0);
    let (_other, others) = seated(&admission, &books);
    drop(first);
    assert_eq!(admission.running(), 2, "over the limit by the one who came back");
    drop(second);
    assert_eq!(admission.running(), 2, "only once");
    drop(others);
    let away = Seat::leave(&seat, Blocked::No);
    drop(ticket);
    drop(away);
    assert_eq!(admission.running(), 0, "nobody comes back after the end");
    assert!(matches!(seat.begin(RequestId::random(), 0), Err(Error::Over)));
    let waited = seat.waited();
    assert_eq!(waited, seat.waited(), "no wait goes on after the end");
}

#[test]
fn an_answer_is_given_once_and_what_is_held_is_bounded() {
    let (admission, books) = (Admission::new(Concurrency { account: 1 }), Arc::<Books>::default());
    let (seat, ticket) = seated(&admission, &books);
    let held = || books.0.load(Ordering::Acquire);
    let ids: Vec<RequestId> = (0..3).map(|_| RequestId::random()).collect();
    for id in &ids {
        seat.begin(*id, 10).unwrap();
    }
    assert_eq!(held(), 30);
    seat.done(ids[0], answered(5));
    assert_eq!(held(), 25);
    assert_eq!(seat.which_are_done(&ids).unwrap(), [ids[0]]);
    assert_eq!(seat.take(ids[0]).unwrap().body.len(), 5);
    assert!(matches!(seat.take(ids[0]), Err(Error::NotFound(_))));
    assert!(matches!(seat.which_are_done(&ids), Err(Error::NotFound(_))));
    seat.done(ids[1], answered(MOST_BYTES));
    assert!(matches!(seat.take(ids[1]), Err(Error::TooLarge { bytes: MOST_BYTES, limit: MOST_BYTES })));
    assert!(matches!(seat.begin(ids[1], MOST_BYTES), Err(Error::TooLarge { .. })));
    seat.forget(ids[2]).unwrap();
    seat.done(ids[2], answered(5));
    assert_eq!(held(), 0);
    for _ in 0..MOST_CALLS {
        seat.begin(RequestId::random(), 1).unwrap();
    }
    assert!(matches!(seat.begin(RequestId::random(), 0), Err(Error::TooMany)));
    drop(ticket);
    assert_eq!((held(), seat.waited()), (0, Duration::ZERO));
}
