//! Writing what is known: everything together, or in parts where locks are in the way.

use std::collections::HashSet;

use super::calls::take_uncalled;
use super::Engine;
use crate::core::health::given_up::GivenUp;
use crate::pg::clock;
use crate::worker::definitions::{Changes, Definitions};
use crate::worker::locks::{Locks, Work};
use crate::worker::maintenance::Maintenance;
use crate::worker::reading::Reader;
use crate::worker::scheduling::Scheduler;
use crate::worker::settling::{Refusal, Scope, Settler, Urls};

/// Those whose state is written, and that learn what was.
struct Others<'a> {
    definitions: &'a mut Definitions,
    reader: &'a mut Reader,
    scheduler: &'a mut Scheduler,
    maintenance: &'a mut Maintenance,
    locks: &'a mut Locks,
    made_messages: &'a mut bool,
}

impl Engine {
    /// Writes what is due. Opens transactions.
    pub(super) fn settle_if_due(&mut self) {
        take_uncalled(&mut self.scheduler, &mut self.settler);
        if self.settler.is_due() {
            self.settle();
            self.settler.notify();
        }
        if self.settler.compaction_is_due() {
            self.compact();
        }
        if self.settler.activity_is_due() {
            let _ = self.record_activity();
        }
    }

    /// `false` if it has to be tried again.
    fn record_activity(&mut self) -> bool {
        match self.settler.write_activity() {
            Ok(()) => {
                self.locks.succeeded(Work::Activity);
                true
            }
            Err(failure) if failure.is_lock_not_available() => {
                self.locks.failed(Work::Activity, self.ticker.now());
                false
            }
            Err(failure) => {
                pgrx::warning!("could not write webhook.activity: {}", failure.message);
                false
            }
        }
    }

    /// At an orderly end: those that are locked are tried once more.
    pub(super) fn settle_at_last(&mut self) {
        self.settler.try_locked_now();
        self.settle();
        self.settler.notify();
        while self.settler.has_activity() && self.record_activity() {}
    }

    /// Writes everything that is known, but for URLs that locks keep from it.
    fn settle(&mut self) {
        self.locks.adjust_lock_timeout(self.settler.has_locked());
        self.settler
            .adjust_for_clock_step(clock::now(), &self.retry_schedule);
        let aside = self.settler.set_aside();
        let written = self.write(Scope {
            tail: true,
            tick: true,
            urls: Urls::AllBut(&aside),
        });
        let is_written = match written {
            Ok(()) => true,
            Err(Refusal::Locked) => self.settle_apart(&aside),
            Err(Refusal::Failed) => false,
        };
        if is_written {
            self.locks.succeeded(Work::Tail);
            if self.settler.locked_are_due() {
                let (settler, mut others) = self.split();
                settler.try_locked(&mut |settler, urls| others.write_only(settler, urls));
                self.note_locked();
            }
        }
        self.settler.count_locked();
    }

    /// Something of the whole is locked: what cannot be kept from being written is written
    /// first. `false` if not even the tail's position could be.
    fn settle_apart(&mut self, aside: &HashSet<i32>) -> bool {
        let lockable = self.settler.lockable();
        let lockable: HashSet<i32> = lockable.difference(aside).copied().collect();
        let others: HashSet<i32> = aside.union(&lockable).copied().collect();
        let nothing = HashSet::new();
        let (clean, tail) = (Urls::AllBut(&others), Urls::Only(&nothing));
        for (tick, urls) in [(true, clean), (false, clean), (false, tail)] {
            let scope = Scope {
                tail: true,
                tick,
                urls,
            };
            match self.write(scope) {
                Ok(()) => {
                    if !tick {
                        self.reader.ticks_are_locked();
                    }
                    if matches!(urls, Urls::AllBut(_)) {
                        self.write_each(&Vec::from_iter(lockable));
                    } else {
                        self.settler.hold_everything();
                    }
                    self.note_locked();
                    return true;
                }
                Err(Refusal::Locked) => {}
                Err(Refusal::Failed) => return false,
            }
        }
        self.locks.failed(Work::Tail, self.ticker.now());
        let again = self.locks.next_try_of(Work::Tail);
        self.settler
            .wait_until(again.unwrap_or_else(|| self.ticker.now()));
        false
    }

    /// Tells the server log which messages were given up.
    pub(super) fn report_given_up(&mut self) {
        for given_up in self.settler.take_given_up() {
            let label = self.scheduler.label(given_up.url_key);
            let GivenUp {
                messages,
                message_id,
                attempts,
                error,
                ..
            } = given_up;
            match messages {
                1 => pgrx::warning!(
                    "{label}: message {message_id} failed for good after call {attempts}: {error}"
                ),
                _ => pgrx::warning!(
                    "{label}: {messages} messages failed for good, the last one {message_id} after call {attempts}: {error}"
                ),
            }
        }
    }

    fn write_each(&mut self, url_keys: &[i32]) {
        let (settler, mut others) = self.split();
        settler.try_each(url_keys, &mut |settler, urls| {
            others.write_only(settler, urls)
        });
    }

    fn note_locked(&mut self) {
        if self.settler.has_locked() {
            self.locks.failed(Work::Outcomes, self.ticker.now());
        } else {
            self.locks.succeeded(Work::Outcomes);
        }
    }

    fn write(&mut self, scope: Scope<'_>) -> Result<(), Refusal> {
        let (settler, mut others) = self.split();
        others.write(settler, scope)
    }

    fn split(&mut self) -> (&mut Settler, Others<'_>) {
        let others = Others {
            definitions: &mut self.definitions,
            reader: &mut self.reader,
            scheduler: &mut self.scheduler,
            maintenance: &mut self.maintenance,
            locks: &mut self.locks,
            made_messages: &mut self.made_messages,
        };
        (&mut self.settler, others)
    }

    fn compact(&mut self) {
        let oldest_tick = self.scheduler.oldest_tick();
        let oldest_tick = oldest_tick.unwrap_or_else(|| self.reader.last_tick());
        match self.settler.compact(oldest_tick) {
            Ok(()) => {
                self.locks.succeeded(Work::Compaction);
                self.scheduler.forget_health();
            }
            Err(failure) if failure.is_lock_not_available() => {
                self.locks.failed(Work::Compaction, self.ticker.now());
                let again = self.locks.next_try_of(Work::Compaction);
                self.settler.compact_not_before(again.unwrap_or(0));
            }
            Err(_) => {}
        }
    }
}

impl Others<'_> {
    /// The outcomes of these URLs. After a lock that was waited for in vain the next wait is
    /// short.
    fn write_only(&mut self, settler: &mut Settler, urls: &HashSet<i32>) -> Result<(), Refusal> {
        let written = self.write(settler, Scope::only(urls));
        if written.is_err() {
            self.locks.adjust_lock_timeout(true);
        }
        written
    }

    /// One transaction, with what follows from its success or failure.
    fn write(&mut self, settler: &mut Settler, scope: Scope<'_>) -> Result<(), Refusal> {
        let has = |url_key| scope.has(url_key);
        take_uncalled(self.scheduler, settler);
        self.scheduler.begin_writing(has);
        let lanes = self.scheduler.lane_states(
            |url_key| scope.tail || scope.has(url_key),
            |url_key| !scope.has(url_key) && settler.is_locked(url_key),
        );
        let may_tick = scope.tail && scope.tick && self.scheduler.any_lagging();
        let tail = self.reader.tail_state(may_tick);
        let reader = &*self.reader;
        let written = settler.write(scope, &tail, &lanes, || reader.store_tick(&tail));
        let written = match written {
            Ok(written) => written,
            Err(failure) => {
                self.scheduler.writing_failed(has);
                if failure.is_lock_not_available() {
                    return Err(Refusal::Locked);
                }
                settler.writing_failed(&failure);
                return Err(Refusal::Failed);
            }
        };
        self.scheduler.written(has, scope.tail);
        for (url_key, at) in written.retries {
            self.scheduler.expect_retry(url_key, at);
        }
        for (url_key, at) in written.done {
            self.scheduler.forget_single(url_key, at);
        }
        for (url_key, why) in written.switched_off {
            pgrx::warning!(
                "{}: this URL is off from now on, because {why}",
                self.scheduler.label(url_key)
            );
        }
        for url_key in written.gone {
            self.scheduler.gone_is_written(url_key);
            if let Some(webhook_key) = self.scheduler.webhook_of(url_key) {
                self.definitions.read_again(Changes::of(webhook_key));
            }
        }
        *self.made_messages |= written.made_messages;
        self.reader.tail_is_written(tail);
        self.maintenance.be_due_soon();
        Ok(())
    }
}
