//! Threads: how many, who gets the next job, and how they end.

use std::sync::atomic::AtomicUsize;
use std::sync::Mutex;

use super::super::call::Verdict;
use super::scripted::{wait_until, Receiver, OK};
use super::*;

#[test]
fn a_panic_fails_its_call_and_no_other() {
    struct Bomb;
    impl Payload for Bomb {
        fn render(&self, _: &CallStamp, _: usize, _: &mut Vec<u8>) -> Result<usize, String> {
            panic!("boom {}", 42);
        }
    }
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    let target = target(&receiver.url());
    let outcome = user.call_with(&target, Arc::new(Bomb));
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert_eq!(
        detail(&outcome),
        "internal error in the delivery thread: boom 42"
    );
    assert_eq!(user.call(&target).verdict, Verdict::Delivered);
    assert_eq!((user.pool.threads(), user.pool.in_flight()), (1, 0));
}

#[cfg(feature = "fault_injection")]
#[test]
fn the_fault_hook_panics() {
    let receiver = Receiver::friendly();
    let outcome =
        PoolUser::local().call(&target(&format!("{}/webhook-fault-panic", receiver.url())));
    assert!(detail(&outcome).starts_with("internal error in the delivery thread"));
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn threads_grow_with_the_load_up_to_the_limit() {
    let open = Arc::new(AtomicUsize::new(0));
    let (counter, gate) = (Arc::clone(&open), Arc::new(Mutex::new(())));
    let shut = Arc::clone(&gate);
    let receiver = Receiver::start(move |connection| {
        while connection.request().is_some() {
            counter.fetch_add(1, Ordering::SeqCst);
            drop(shut.lock().unwrap());
            let _ = connection.send(OK);
        }
    });
    let user = PoolUser::local();
    user.pool.set_limit(4);
    let target = target(&receiver.url());
    let closed = gate.lock().unwrap();
    for _ in 0..10 {
        user.submit(&target, Arc::new(Text(vec![])));
    }
    wait_until("four calls are open", PATIENCE, || {
        open.load(Ordering::SeqCst) == 4
    });
    assert_eq!((user.pool.threads(), user.pool.in_flight()), (4, 10));
    assert!(!user.pool.needs_thread());
    drop(closed);
    let mut tokens: Vec<_> = user
        .wait_for(10)
        .iter()
        .map(|outcome| outcome.token)
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (1..=10).collect::<Vec<_>>());
    assert_eq!((receiver.connections(), user.pool.in_flight()), (4, 0));
    user.pool.set_limit(1);
    wait_until("the others end", PATIENCE, || user.pool.threads() == 1);
    assert_eq!(user.call(&target).verdict, Verdict::Delivered);
}

#[test]
fn a_light_load_stays_on_the_warm_thread() {
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    let target = target(&receiver.url());
    for _ in 0..4 {
        user.pool.spawn_thread().unwrap();
    }
    for _ in 0..50 {
        assert_eq!(user.call(&target).verdict, Verdict::Delivered);
    }
    // A thread that is still on its way to rest may miss a turn now and then.
    assert!(
        receiver.connections() <= 4,
        "{} connections",
        receiver.connections()
    );
}

#[test]
fn an_idle_thread_ends_and_the_next_job_asks_for_a_new_one() {
    let receiver = Receiver::friendly();
    let idle = Duration::from_millis(50);
    let user = PoolUser::with_pace(
        local_config(),
        Pace {
            end_after_idle: idle,
            ..PATIENT
        },
    );
    let target = target(&receiver.url());
    for round in 1..=20 {
        assert_eq!(user.call(&target).verdict, Verdict::Delivered);
        if round % 2 == 0 {
            wait_until("the thread ends", PATIENCE, || user.pool.threads() == 0);
        } else {
            // About when it ends, before or after.
            std::thread::sleep(idle - Duration::from_millis(1));
        }
    }
    assert_eq!(receiver.received().len(), 20);
}

/// A thread that ends as soon as it is idle, and jobs that come about then.
#[test]
fn a_thread_that_ends_leaves_no_job_behind() {
    const ROUNDS: u32 = 20_000;
    struct Nothing;
    impl Payload for Nothing {
        fn render(&self, _: &CallStamp, _: usize, _: &mut Vec<u8>) -> Result<usize, String> {
            Err("there is nothing to send".to_owned())
        }
    }
    let user = PoolUser::with_pace(
        local_config(),
        Pace {
            end_after_idle: Duration::ZERO,
            ..PATIENT
        },
    );
    let (target, payload) = (target("http://127.0.0.1:1/"), Arc::new(Nothing));
    for round in 0..ROUNDS {
        let outcome = user.call_with(&target, Arc::clone(&payload) as Arc<dyn Payload>);
        assert_eq!(outcome.verdict, Verdict::Unrenderable);
        // The next one comes a little earlier or later.
        for _ in 0..round % 512 {
            std::hint::spin_loop();
        }
    }
}

#[test]
fn many_jobs_from_a_full_queue_all_come_back() {
    const JOBS: usize = 5_000;
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    user.pool.set_limit(8);
    let target = target(&receiver.url());
    let (mut submitted, mut outcomes) = (0, Vec::new());
    while outcomes.len() < JOBS {
        while submitted < JOBS && user.pool.in_flight() < 200 {
            user.submit(&target, Arc::new(Text(b"{}".to_vec())));
            submitted += 1;
        }
        outcomes.extend(user.wait_for(1));
    }
    assert!(outcomes
        .iter()
        .all(|outcome| outcome.verdict == Verdict::Delivered));
    let mut tokens: Vec<_> = outcomes.iter().map(|outcome| outcome.token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (1..=JOBS as u64).collect::<Vec<_>>());
    assert_eq!(receiver.received().len(), JOBS);
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let user = PoolUser::local();
    user.pool.set_limit(0);
    let target = target("http://127.0.0.1:1/");
    let mut job = user.submit(&target, Arc::new(Text(vec![])));
    let mut taken = 1;
    while let Ok(()) = user.pool.submit(vec![copy_of(&job)]) {
        taken += 1;
        job = copy_of(&job);
        assert!(taken < 100_000, "the queue has no end");
    }
    assert_eq!(user.pool.in_flight(), taken);
}

#[test]
fn new_settings_reach_threads_that_keep_connections() {
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    let target = target(&receiver.url());
    assert_eq!(user.call(&target).verdict, Verdict::Delivered);
    user.pool.reconfigure(ClientConfig {
        policy: AddressPolicy::default(),
        ..local_config()
    });
    let refused = user.call(&target);
    assert!(detail(&refused).contains("is not allowed"), "{refused:?}");
    user.pool.reconfigure(ClientConfig {
        user_agent: "other/1".to_owned(),
        ..local_config()
    });
    assert_eq!(user.call(&target).verdict, Verdict::Delivered);
    let received = receiver.received();
    assert_eq!((received.len(), receiver.connections()), (2, 2));
    assert_eq!(received[1].header("user-agent"), Some("other/1"));
}

#[test]
fn an_idle_thread_drops_its_connections_with_the_old_settings() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ended);
    let receiver = Receiver::start(move |connection| {
        connection.answer_all(OK);
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let user = PoolUser::local();
    user.call(&target(&receiver.url()));
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    user.pool.reconfigure(local_config());
    wait_until("the kept connection closes", PATIENCE, || {
        ended.load(Ordering::SeqCst) == 1
    });
}

#[test]
fn a_shutdown_interrupts_calls_that_hang() {
    let receiver = Receiver::start(|connection| {
        connection.request();
        connection.hang();
    });
    let user = PoolUser::local();
    let target = target(&receiver.url());
    for _ in 0..5 {
        user.submit(&target, Arc::new(Text(vec![])));
    }
    wait_until("five calls hang", PATIENCE, || {
        receiver.received().len() == 5
    });
    let started = Instant::now();
    assert!(user.pool.shutdown(PATIENCE), "a thread did not end");
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    // An interrupted call is no failure.
    assert_eq!(user.pool.drain_outcomes(10, &mut Vec::new()), 0);
    assert_eq!(user.pool.threads(), 0);
    let job = Job {
        token: 0,
        payload: Arc::new(Text(vec![])),
        message_id: Uuid::nil(),
        call_id: Uuid::nil(),
        attempt: 1,
        sent: None,
        target,
    };
    assert_eq!(user.pool.submit(vec![job]).unwrap_err()[0].token, 0);
}

#[test]
fn a_shutdown_ends_idle_threads_and_keeps_outcomes() {
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    for _ in 0..3 {
        user.pool.spawn_thread().unwrap();
    }
    user.submit(&target(&receiver.url()), Arc::new(Text(vec![])));
    user.wake_ups.recv_timeout(PATIENCE).unwrap();
    assert!(user.pool.shutdown(PATIENCE));
    let mut outcomes = Vec::new();
    assert_eq!(user.pool.drain_outcomes(10, &mut outcomes), 1);
    assert_eq!(outcomes[0].verdict, Verdict::Delivered);
}

#[test]
fn a_shutdown_does_not_wait_for_a_thread_that_cannot_be_interrupted() {
    struct Stuck {
        entered: Mutex<mpsc::Sender<()>>,
        hold: Mutex<mpsc::Receiver<()>>,
    }
    impl Payload for Stuck {
        fn render(&self, _: &CallStamp, _: usize, _: &mut Vec<u8>) -> Result<usize, String> {
            self.entered.lock().unwrap().send(()).unwrap();
            let _ = self.hold.lock().unwrap().recv();
            Err("released".to_owned())
        }
    }
    let user = PoolUser::local();
    let (release, hold) = mpsc::channel();
    let (entered, is_in) = mpsc::channel();
    let stuck = Stuck {
        entered: Mutex::new(entered),
        hold: Mutex::new(hold),
    };
    user.submit(&target("http://127.0.0.1:1/"), Arc::new(stuck));
    is_in.recv_timeout(PATIENCE).unwrap();
    let started = Instant::now();
    assert!(!user.pool.shutdown(Duration::from_millis(100)));
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    drop(release);
}

#[test]
fn a_burst_of_outcomes_rings_once_until_drained() {
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    user.pool.set_limit(1);
    let target = target(&receiver.url());
    for _ in 0..10 {
        user.submit(&target, Arc::new(Text(vec![])));
    }
    wait_until("all calls end", PATIENCE, || user.pool.in_flight() == 0);
    assert_eq!(user.wake_ups.try_iter().count(), 1);
    let mut outcomes = Vec::new();
    assert_eq!(user.pool.drain_outcomes(4, &mut outcomes), 4);
    assert_eq!(user.pool.drain_outcomes(100, &mut outcomes), 6);
    user.submit(&target, Arc::new(Text(vec![])));
    user.wake_ups.recv_timeout(PATIENCE).expect("rings again");
}
