//! Calls that start and calls that have ended.

use super::Engine;
use crate::worker::notices::Topic;
use crate::worker::scheduling::{Returned, Run, Scheduler};
use crate::worker::settling::Settler;

impl Engine {
    /// Takes what the threads have finished.
    pub(super) fn take_outcomes(&mut self) {
        for outcome in self.sender.take_outcomes() {
            match self.scheduler.finish(outcome) {
                Returned::Ended(settled) => {
                    if settled.switches_off.is_some() {
                        self.scheduler.hold_gone(settled.url_key);
                    }
                    self.settler.add(*settled);
                }
                Returned::NotMade { lacking } => {
                    if let Some(lacking) = lacking {
                        self.sender.note_lacking(lacking);
                    }
                }
                Returned::Unknown => {}
            }
        }
    }

    /// Starts as many calls as lanes, throttles, connections and memory allow.
    pub(super) fn dispatch(&mut self) {
        self.scheduler.wake();
        if self.delivery_is_on && self.settler.may_call_at_all() {
            self.start_calls();
            let free = self.sender.free_connections();
            self.scheduler.grant_bodies(free);
            self.sender.grow();
        }
        let shortage = self.sender.shortage();
        self.notices.set(Topic::Connections, shortage);
    }

    /// One call a URL and round, so that no URL starves another.
    fn start_calls(&mut self) {
        loop {
            let (settler, free) = (&self.settler, self.sender.free_connections());
            let run = self
                .scheduler
                .next_run(free, |url_key| settler.may_call(url_key));
            let Some(Run { url_key, jobs }) = run else {
                break;
            };
            // The pool's queue is far longer than connections allow; were it full all the same,
            // the messages go back.
            if let Err(jobs) = self.sender.submit(jobs) {
                self.scheduler.requeue_run(&Run { url_key, jobs });
                break;
            }
        }
        self.scheduler.end_round();
        take_uncalled(&mut self.scheduler, &mut self.settler);
    }
}

/// What lanes have come to that is not called: it was canceled, or waits for another message of
/// its key. Before each write, so that nothing counts as written that is not.
pub(super) fn take_uncalled(scheduler: &mut Scheduler, settler: &mut Settler) {
    loop {
        let held_back = scheduler.take_held_back();
        if held_back.is_empty() && !scheduler.any_held_back() {
            break;
        }
        for held in held_back {
            settler.hold_back(&held);
        }
    }
    for canceled in scheduler.take_canceled() {
        settler.cancel(canceled);
    }
}
