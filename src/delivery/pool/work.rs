//! The life of a delivery thread: it takes a run, makes its calls one after the other, tells
//! the owner, and rests when nothing is queued. New settings hold from the next call on; what
//! goes wrong in a call, a panic included, is its outcome.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::call::{Outcome, Verdict};
use super::super::client::{Client, UreqClient};
use super::super::desk::{recalled, Desk};
use super::seats::Seat;
use super::{lock, Run, Shared};

/// A run that goes on for longer than this tells the owner what it has so far.
const TELL_AFTER: Duration = Duration::from_millis(2);

impl Shared {
    pub(super) fn work(&self, seat: &Arc<Seat>) {
        let mut equipped: Option<(u64, Desk)> = None;
        while self.may_go_on(seat) {
            let generation = self.generation.load(SeqCst);
            if equipped
                .as_ref()
                .is_some_and(|(taken, _)| *taken != generation)
            {
                equipped = None;
                lock(&seat.client).take();
            }
            match self.jobs.try_recv() {
                Ok((stamp, run)) => {
                    if !self.jobs.is_empty() {
                        self.wake_one();
                    }
                    equipped = self.serve_run(seat, equipped, stamp, run);
                }
                Err(_) if self.rest(seat, generation) => {}
                Err(_) => break,
            }
        }
        drop(equipped);
        self.leave(seat);
        if !self.jobs.is_empty() {
            self.wake_one();
        }
    }

    fn serve_run(
        &self,
        seat: &Seat,
        mut equipped: Option<(u64, Desk)>,
        stamp: u64,
        run: Run,
    ) -> Option<(u64, Desk)> {
        let started = Instant::now();
        let mut stopped = false;
        let count = run.len();
        for (place, job) in run.into_iter().enumerate() {
            let ready = (!stopped).then(|| self.equipped_now(seat, equipped.take()));
            stopped = stopped || !self.is_permitted(stamp);
            let outcome = if stopped {
                equipped = equipped.or(ready);
                recalled(&job)
            } else {
                let (generation, desk) = ready.expect("a run that goes on has a desk");
                let (desk, outcome) = desk.deliver(&job);
                equipped = desk.map(|desk| (generation, desk));
                // New settings hold from the next call on.
                stopped = outcome.verdict != Verdict::Delivered
                    || started.elapsed() >= self.pace.run_at_most
                    || generation != self.generation.load(SeqCst)
                    || self.is_closing.load(SeqCst);
                outcome
            };
            // What the message holds is free when the owner hears of the outcome.
            drop(job);
            let ends_run = place + 1 == count;
            let tell = ends_run || stopped || started.elapsed() >= TELL_AFTER;
            self.finish(
                Outcome {
                    ends_run,
                    ..outcome
                },
                tell,
            );
        }
        equipped
    }

    /// The last look before a call: nothing that takes long may come after it.
    fn is_permitted(&self, stamp: u64) -> bool {
        let permission = self.permission.get();
        permission.is_none_or(|permission| permission.holds(stamp))
    }

    /// A desk with the present settings. The thread may have looked at them before a job came
    /// that was submitted under new ones: a connection that these forbid is closed, not used.
    fn equipped_now(&self, seat: &Seat, equipped: Option<(u64, Desk)>) -> (u64, Desk) {
        match equipped {
            Some((generation, desk)) if generation == self.generation.load(SeqCst) => {
                (generation, desk)
            }
            outdated => {
                drop(outdated);
                lock(&seat.client).take();
                self.equip(seat)
            }
        }
    }

    fn equip(&self, seat: &Seat) -> (u64, Desk) {
        let (generation, rules) = {
            let floor = self.floor();
            (self.generation.load(SeqCst), Arc::clone(&floor.rules))
        };
        let client: Arc<dyn Client> = Arc::new(UreqClient::new(&rules));
        *lock(&seat.client) = Some(Arc::clone(&client));
        // close() sets the flag before it looks for clients: it either finds
        // this one, or the flag is seen here.
        if self.is_closing.load(SeqCst) {
            client.interrupt();
        }
        (generation, Desk::new(rules, client))
    }

    fn finish(&self, outcome: Outcome, tell: bool) {
        let was_interrupted = self.is_closing.load(SeqCst)
            && matches!(
                outcome.verdict,
                Verdict::Failed | Verdict::Recalled | Verdict::Local
            );
        let ends_run = outcome.ends_run;
        // The owner holds the other end for as long as anyone can look.
        if was_interrupted || self.outcomes.send(outcome).is_err() {
            return;
        }
        if ends_run {
            self.in_flight.fetch_sub(1, SeqCst);
        }
        if tell && !self.is_wake_due.swap(true, SeqCst) {
            (self.wake)();
        }
    }

    fn may_go_on(&self, seat: &Arc<Seat>) -> bool {
        if self.is_closing.load(SeqCst) {
            return false;
        }
        if self.threads.load(SeqCst) <= self.limit.load(SeqCst) {
            return true;
        }
        let mut floor = self.floor();
        let is_over = floor.seats.len() > self.limit.load(SeqCst);
        if is_over {
            self.give_up_seat(&mut floor, seat);
        }
        !is_over
    }

    fn leave(&self, seat: &Arc<Seat>) {
        lock(&seat.client).take();
        self.give_up_seat(&mut self.floor(), seat);
        self.thread_ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::super::call::{CallStamp, Job, Payload, Target};
    use super::super::super::client::ClientConfig;
    use super::super::Pool;
    use super::*;
    use crate::core::address::AddressPolicy;
    use crate::core::endpoint::Endpoint;

    struct Empty;

    impl Payload for Empty {
        fn render(&self, _: &CallStamp, _: usize, out: &mut Vec<u8>) -> Result<usize, String> {
            out.extend_from_slice(b"{}");
            Ok(2)
        }
    }

    fn allowing(networks: &str) -> ClientConfig {
        ClientConfig {
            policy: AddressPolicy::parse(networks).unwrap(),
            ..ClientConfig::default()
        }
    }

    fn job(token: u64) -> Job {
        Job {
            token,
            target: Arc::new(Target {
                // Nobody listens there.
                url: Endpoint::parse("http://127.0.0.1:1/").unwrap(),
                timeout: Duration::from_secs(20),
                headers: vec![],
                signers: vec![],
                confidential: Arc::default(),
            }),
            payload: Arc::new(Empty),
            message_id: Uuid::from_u128(1),
            call_id: Uuid::from_u128(2),
            attempt: 1,
            sent: None,
        }
    }

    /// What a thread does that looks at the settings, and takes a job which came after others.
    #[test]
    fn a_job_that_is_submitted_after_a_reload_is_called_with_the_new_settings() {
        let pool = Pool::new(allowing("127.0.0.0/8"), Arc::new(|| ()));
        let seat = Seat::new();
        let mut equipped = Some(pool.shared.equip(&seat));
        let mut details = Vec::new();
        for token in 0..2 {
            pool.submit(vec![job(token)]).expect("the queue has room");
            let (stamp, run) = pool.shared.jobs.try_recv().expect("a run");
            equipped = pool.shared.serve_run(&seat, equipped, stamp, run);
            let mut outcomes = Vec::new();
            assert_eq!(pool.drain_outcomes(10, &mut outcomes), 1);
            details.push(outcomes.remove(0).detail.unwrap_or_default());
            pool.reconfigure(allowing(""));
        }
        assert_eq!(details[0], "connection refused");
        assert!(details[1].contains("is not allowed"), "{details:?}");
    }
}
