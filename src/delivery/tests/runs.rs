//! Several calls that one thread makes one after the other.

use std::sync::atomic::AtomicU64;

use super::super::call::Verdict;
use super::super::pool::Permission;
use super::scripted::Receiver;
use super::*;

/// One thread's run of these payloads, with the tokens 1, 2, ….
fn submit_run(user: &PoolUser, target: &Arc<Target>, payloads: Vec<Arc<dyn Payload>>) {
    let run = (1..).zip(payloads).map(|(token, payload)| Job {
        token,
        target: Arc::clone(target),
        payload,
        message_id: Uuid::from_u128(7),
        call_id: Uuid::from_u128(u128::from(token)),
        attempt: 1,
        sent: None,
    });
    user.pool.submit(run.collect()).expect("the queue has room");
    user.pool.spawn_thread().unwrap();
}

fn verdicts(outcomes: &[Outcome]) -> Vec<(u64, Verdict, bool)> {
    outcomes
        .iter()
        .map(|outcome| (outcome.token, outcome.verdict, outcome.ends_run))
        .collect()
}

#[test]
fn a_run_is_sent_in_order_over_one_connection_and_counts_as_one_call_in_flight() {
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    let text = || Arc::new(Text(b"{}".to_vec())) as Arc<dyn Payload>;
    submit_run(
        &user,
        &target(&receiver.url()),
        vec![text(), text(), text()],
    );
    assert_eq!(
        verdicts(&user.wait_for(3)),
        [
            (1, Verdict::Delivered, false),
            (2, Verdict::Delivered, false),
            (3, Verdict::Delivered, true),
        ]
    );
    assert_eq!((user.pool.in_flight(), user.pool.threads()), (0, 1));
    assert_eq!((receiver.received().len(), receiver.connections()), (3, 1));
}

#[test]
fn what_follows_a_call_that_was_not_delivered_is_given_back_untried() {
    let receiver = Receiver::start(|connection| {
        for status in ["200 OK", "500 Internal Server Error", "200 OK", "200 OK"] {
            if connection.request().is_none() {
                return;
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            if connection.send(answer).is_err() {
                return;
            }
        }
    });
    let user = PoolUser::local();
    let text = || Arc::new(Text(b"{}".to_vec())) as Arc<dyn Payload>;
    let target = target(&receiver.url());
    submit_run(&user, &target, vec![text(), text(), text(), text()]);
    assert_eq!(
        verdicts(&user.wait_for(4)),
        [
            (1, Verdict::Delivered, false),
            (2, Verdict::Failed, false),
            (3, Verdict::NotAttempted, false),
            (4, Verdict::NotAttempted, true),
        ]
    );
    assert_eq!(user.pool.in_flight(), 0);
    assert_eq!(receiver.received().len(), 2);
}

#[test]
fn what_follows_a_call_that_took_long_is_given_back_untried() {
    let receiver = Receiver::friendly();
    let user = PoolUser::with_pace(
        local_config(),
        Pace {
            run_at_most: Duration::ZERO,
            ..PATIENT
        },
    );
    let text = || Arc::new(Text(b"{}".to_vec())) as Arc<dyn Payload>;
    submit_run(&user, &target(&receiver.url()), vec![text(), text()]);
    assert_eq!(
        verdicts(&user.wait_for(2)),
        [
            (1, Verdict::Delivered, false),
            (2, Verdict::NotAttempted, true),
        ]
    );
    assert_eq!(receiver.received().len(), 1);
}

/// Permission that its owner takes away at some call.
struct Revoked {
    asked: AtomicU64,
    at: u64,
}

impl Permission for Revoked {
    fn stamp(&self) -> u64 {
        7
    }

    fn holds(&self, stamp: u64) -> bool {
        assert_eq!(stamp, 7, "the run keeps the stamp of its submission");
        self.asked.fetch_add(1, Ordering::SeqCst) + 1 < self.at
    }
}

#[test]
fn a_run_whose_permission_ends_gives_its_rest_back_untried() {
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    user.pool.ask_before_calls(Arc::new(Revoked {
        asked: AtomicU64::new(0),
        at: 3,
    }));
    let text = || Arc::new(Text(b"{}".to_vec())) as Arc<dyn Payload>;
    let target = target(&receiver.url());
    submit_run(&user, &target, vec![text(), text(), text(), text()]);
    assert_eq!(
        verdicts(&user.wait_for(4)),
        [
            (1, Verdict::Delivered, false),
            (2, Verdict::Delivered, false),
            (3, Verdict::NotAttempted, false),
            (4, Verdict::NotAttempted, true),
        ]
    );
    assert_eq!((user.pool.in_flight(), receiver.received().len()), (0, 2));
}
