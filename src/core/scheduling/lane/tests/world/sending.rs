//! How the worker sends, and what comes back.

use super::*;

/// Quick enough for runs.
const CALL_NANOS: u64 = 200_000;

impl World {
    pub fn dispatch(&mut self, accepts: bool) -> Result<(), TestCaseError> {
        while self.lane.may_start(self.now) && self.lane.has_next() {
            let mut length = self.lane.run_length();
            if let Some(throttle) = &mut self.throttle {
                if throttle.try_take(self.now).is_err() {
                    break;
                }
                length = 1;
            }
            let mut run = VecDeque::new();
            for _ in 0..length {
                let token = self.next_token;
                let Some(entry) = self.lane.start(token) else {
                    break;
                };
                self.next_token += 1;
                run.push_back(Handed {
                    token,
                    at: entry.at,
                    attempts: entry.attempts + 1,
                });
            }
            self.lane.begin_run();
            if !accepts {
                return self.give_back(run);
            }
            self.call_first_of(&run)?;
            self.runs.push(run);
        }
        Ok(())
    }

    fn give_back(&mut self, run: VecDeque<Handed>) -> Result<(), TestCaseError> {
        for handed in run {
            let recalled = self.lane.recall(handed.token).map(|entry| entry.at);
            prop_assert_eq!(recalled, Some(handed.at));
        }
        self.lane.advance();
        self.lane.end_run();
        Ok(())
    }

    fn call_first_of(&mut self, run: &VecDeque<Handed>) -> Result<(), TestCaseError> {
        let Some(handed) = run.front() else {
            return Ok(());
        };
        let place = self.stream.place(handed.at);
        let on_wire = self.runs.iter().filter_map(|run| run.front());
        let on_wire: Vec<usize> = on_wire.map(|call| self.stream.place(call.at)).collect();
        let order = match self.rules.switches {
            true => DeliveryOrder::None,
            false => self.rules.order,
        };
        self.witness
            .is_called(&self.stream.committed, place, self.now, order, &on_wire)
    }

    /// The call of one of the runs ends. The receiver that is down answers nobody.
    pub fn end_call(&mut self, which: usize, answer: Answer) -> Result<(), TestCaseError> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let which = which % self.runs.len();
        let mut run = self.runs.swap_remove(which);
        let handed = run.pop_front().expect("a run is not empty");
        self.now += CALL_NANOS;
        self.lane.note_duration(CALL_NANOS);
        let answer = if self.is_down {
            Answer::Failed(Health::Down)
        } else {
            answer
        };
        self.outcome(handed, answer)?;
        if matches!(answer, Answer::Taken) && !run.is_empty() {
            self.call_first_of(&run)?;
            self.runs.push(run);
            return Ok(());
        }
        self.give_back(run)
    }

    fn outcome(&mut self, handed: Handed, answer: Answer) -> Result<(), TestCaseError> {
        let place = self.stream.place(handed.at);
        let (health, fate) = match answer {
            Answer::Taken => (Health::Up, Fate::Delivered),
            Answer::Unsendable => (Health::Unknown, Fate::GivenUp),
            Answer::Failed(health) => (health, self.fate_of_failed(handed.attempts)),
        };
        self.lane
            .finish(handed.token, health, self.now)
            .expect("it was on the wire");
        match fate {
            Fate::Delivered => self.witness.is_accepted(place)?,
            Fate::GivenUp => self.witness.is_done(place),
            Fate::Waits(next_at) => drop(self.lane.wait_for_retry(handed.at, next_at)),
        }
        self.outcomes.push(Known {
            at: handed.at,
            attempts: handed.attempts,
            fate,
        });
        Ok(())
    }

    fn fate_of_failed(&self, attempts: u32) -> Fate {
        if attempts >= self.rules.max_attempts {
            return Fate::GivenUp;
        }
        let delay = self.schedule.delay(attempts, 0);
        Fate::Waits(self.now_micros() + delay.as_micros() as i64)
    }
}
