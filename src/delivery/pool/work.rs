//! The loop of a delivery thread: take a run, make its calls one after the other, report the
//! outcomes, wait while nothing is queued. New settings apply from the next call on. Any failure
//! of a call, including a panic, becomes its outcome.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::call::{Outcome, Verdict};
use super::super::client::{Client, UreqClient};
use super::super::executor::{recalled, CallExecutor};
use super::slots::ThreadSlot;
use super::{lock, Run, Shared};

/// A longer run reports the outcomes it has so far.
const TELL_AFTER: Duration = Duration::from_millis(2);

impl Shared {
    pub(super) fn work(&self, slot: &Arc<ThreadSlot>) {
        let mut equipped: Option<(u64, CallExecutor)> = None;
        while self.may_go_on(slot) {
            let generation = self.generation.load(SeqCst);
            if equipped
                .as_ref()
                .is_some_and(|(taken, _)| *taken != generation)
            {
                equipped = None;
                lock(&slot.client).take();
            }
            match self.jobs.try_recv() {
                Ok((stamp, run)) => {
                    if !self.jobs.is_empty() {
                        self.wake_one();
                    }
                    equipped = self.serve_run(slot, equipped, stamp, run);
                }
                Err(_) if self.wait_for_work(slot, generation) => {}
                Err(_) => break,
            }
        }
        drop(equipped);
        self.leave(slot);
        if !self.jobs.is_empty() {
            self.wake_one();
        }
    }

    fn serve_run(
        &self,
        slot: &ThreadSlot,
        mut equipped: Option<(u64, CallExecutor)>,
        stamp: u64,
        run: Run,
    ) -> Option<(u64, CallExecutor)> {
        let started = Instant::now();
        let mut stopped = false;
        let count = run.len();
        for (place, job) in run.into_iter().enumerate() {
            let ready = (!stopped).then(|| self.equipped_now(slot, equipped.take()));
            stopped = stopped || !self.is_permitted(stamp);
            let outcome = if stopped {
                equipped = equipped.or(ready);
                recalled(&job)
            } else {
                let (generation, executor) = ready.expect("a run that goes on has an executor");
                let (executor, outcome) = executor.deliver(&job);
                equipped = executor.map(|executor| (generation, executor));
                // New settings apply from the next call on.
                stopped = outcome.verdict != Verdict::Delivered
                    || started.elapsed() >= self.pace.run_at_most
                    || generation != self.generation.load(SeqCst)
                    || self.is_closing.load(SeqCst);
                outcome
            };
            // The message's memory is free before the owner reads the outcome.
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

    /// The last check before a call: nothing slow may follow it.
    fn is_permitted(&self, stamp: u64) -> bool {
        let permission = self.permission.get();
        permission.is_none_or(|permission| permission.holds(stamp))
    }

    /// An executor with the current settings. The thread may have checked them before it took a
    /// job that was submitted under newer ones: a connection that these forbid is closed unused.
    fn equipped_now(
        &self,
        slot: &ThreadSlot,
        equipped: Option<(u64, CallExecutor)>,
    ) -> (u64, CallExecutor) {
        match equipped {
            Some((generation, executor)) if generation == self.generation.load(SeqCst) => {
                (generation, executor)
            }
            outdated => {
                drop(outdated);
                lock(&slot.client).take();
                self.equip(slot)
            }
        }
    }

    fn equip(&self, slot: &ThreadSlot) -> (u64, CallExecutor) {
        let (generation, rules) = {
            let registry = self.registry();
            (self.generation.load(SeqCst), Arc::clone(&registry.rules))
        };
        let client: Arc<dyn Client> = Arc::new(UreqClient::new(&rules));
        *lock(&slot.client) = Some(Arc::clone(&client));
        // close() sets the flag before it lists the clients: it either finds this one, or the
        // flag is set here.
        if self.is_closing.load(SeqCst) {
            client.interrupt();
        }
        (generation, CallExecutor::new(rules, client))
    }

    fn finish(&self, outcome: Outcome, tell: bool) {
        let was_interrupted = self.is_closing.load(SeqCst)
            && matches!(
                outcome.verdict,
                Verdict::Failed | Verdict::NotAttempted | Verdict::Local
            );
        let ends_run = outcome.ends_run;
        // The channel is closed only once nothing reads outcomes.
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

    fn may_go_on(&self, slot: &Arc<ThreadSlot>) -> bool {
        if self.is_closing.load(SeqCst) {
            return false;
        }
        if self.threads.load(SeqCst) <= self.limit.load(SeqCst) {
            return true;
        }
        let mut registry = self.registry();
        let is_over = registry.slots.len() > self.limit.load(SeqCst);
        if is_over {
            self.remove_slot(&mut registry, slot);
        }
        !is_over
    }

    fn leave(&self, slot: &Arc<ThreadSlot>) {
        lock(&slot.client).take();
        self.remove_slot(&mut self.registry(), slot);
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
    use crate::core::policy::address::AddressPolicy;
    use crate::core::policy::endpoint::Endpoint;

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
        let slot = ThreadSlot::new();
        let mut equipped = Some(pool.shared.equip(&slot));
        let mut details = Vec::new();
        for token in 0..2 {
            pool.submit(vec![job(token)]).expect("the queue has room");
            let (stamp, run) = pool.shared.jobs.try_recv().expect("a run");
            equipped = pool.shared.serve_run(&slot, equipped, stamp, run);
            let mut outcomes = Vec::new();
            assert_eq!(pool.drain_outcomes(10, &mut outcomes), 1);
            details.push(outcomes.remove(0).detail.unwrap_or_default());
            pool.reconfigure(allowing(""));
        }
        assert_eq!(details[0], "connection refused");
        assert!(details[1].contains("is not allowed"), "{details:?}");
    }
}
