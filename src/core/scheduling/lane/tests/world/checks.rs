//! What the receiver saw, held against what it may see.

use super::stream::Change;
use super::*;

/// See the module. Messages are named by their place in the stream.
#[derive(Default)]
pub struct Witness {
    /// When calls were made.
    pub calls: Vec<u64>,
    /// What this worker has called, in order.
    called_in_life: Vec<usize>,
    /// Arrived, given up or canceled.
    done: BTreeSet<usize>,
    accepted: BTreeSet<usize>,
    /// What a crash may repeat.
    in_doubt: BTreeSet<usize>,
    redelivered: BTreeSet<usize>,
}

impl Witness {
    pub fn is_called(
        &mut self,
        stream: &[Change],
        place: usize,
        now: u64,
        order: DeliveryOrder,
        on_wire: &[usize],
    ) -> Result<(), TestCaseError> {
        if order != DeliveryOrder::None && !self.redelivered.contains(&place) {
            self.check_order(stream, place, order)?;
        }
        if order == DeliveryOrder::Key {
            for other in on_wire.iter().map(|place| &stream[*place]) {
                let overlap = other.shares_a_key_with(&stream[place]);
                prop_assert!(!overlap, "{:?} overlaps {:?}", stream[place], other);
            }
        }
        self.calls.push(now);
        self.called_in_life.push(place);
        Ok(())
    }

    /// Everything before it is done, and this worker has called nothing that comes after it.
    fn check_order(
        &self,
        stream: &[Change],
        place: usize,
        order: DeliveryOrder,
    ) -> Result<(), TestCaseError> {
        let change = &stream[place];
        let is_ordered =
            |other: &Change| order == DeliveryOrder::Fifo || other.shares_a_key_with(change);
        for (earlier, other) in stream.iter().enumerate() {
            let must_be_done = other.is_ours() && other.precedes(change) && is_ordered(other);
            prop_assert!(
                !must_be_done || self.done.contains(&earlier),
                "{:?} is called before {:?}",
                change,
                other
            );
        }
        for called in &self.called_in_life {
            let overtook = change.precedes(&stream[*called]) && is_ordered(&stream[*called]);
            prop_assert!(
                !overtook || self.redelivered.contains(called),
                "{:?} is called after {:?}",
                change,
                stream[*called]
            );
        }
        Ok(())
    }

    pub fn is_accepted(&mut self, place: usize) -> Result<(), TestCaseError> {
        let is_first = self.accepted.insert(place);
        let may_repeat = self.in_doubt.remove(&place) || self.redelivered.contains(&place);
        prop_assert!(is_first || may_repeat, "message {} is sent twice", place);
        self.done.insert(place);
        Ok(())
    }

    pub fn is_done(&mut self, place: usize) {
        self.done.insert(place);
    }

    pub fn is_redelivered(&mut self, place: usize) {
        self.redelivered.insert(place);
    }

    pub fn is_in_doubt(&mut self, place: usize) {
        self.in_doubt.insert(place);
    }

    pub fn accepted_in_doubt(&mut self, place: usize) {
        self.accepted.insert(place);
        self.done.insert(place);
        self.in_doubt.insert(place);
    }

    pub fn begins_a_life(&mut self) {
        self.called_in_life.clear();
    }

    /// The most calls in any one second.
    pub fn most_in_any_second(&self) -> usize {
        let within = |start: u64| {
            let second = start..start + SECOND;
            self.calls.iter().filter(|at| second.contains(at)).count()
        };
        let most = self.calls.iter().map(|start| within(*start)).max();
        most.unwrap_or(0)
    }
}
